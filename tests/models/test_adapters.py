"""Adapters beside a network: at first they change nothing, then they alone learn, and they merge into its weights."""

import importlib.util

import pytest
import torch
from torch import nn

from depth_lightning.models import DepthAnythingV2, LoRA, load_weights, official_state_dict, save_weights
from depth_lightning.models.adapters import is_adapters, merged
from depth_lightning.settings import SettingError
from depth_lightning.training.optimizer import adamw

pytest.importorskip("peft", reason="needs the extra adapters")

IMAGE = torch.randn(2, 3, 70, 84, generator=torch.Generator().manual_seed(0))


def network(lora=None):
    torch.manual_seed(0)
    return DepthAnythingV2("tiny", adapter=lora)


def trained(lora):
    """With adapters that change the prediction, and a head that predicts a range of depths."""
    made = network(lora)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if is_adapters(name):
                nn.init.normal_(parameter, std=0.05)
        made.head.scratch.output_conv2[2].weight.mul_(20)
        for block in made.encoder.blocks:
            block.ls1.gamma.fill_(0.5)
            block.ls2.gamma.fill_(0.5)
    return made.eval()


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_before_the_first_step_the_prediction_is_the_same_bit_for_bit(head, autocast):
    plain, adapted = network(), network(LoRA(dropout=0.5, head=head))
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert torch.equal(adapted(IMAGE), plain(IMAGE))


@pytest.mark.parametrize("linears", [("qkv",), ("qkv", "proj", "fc1", "fc2")])
def test_only_adapters_and_the_head_learn(linears):
    made = network(LoRA(rank=3, linears=linears))
    sizes = {"qkv": (192, 576), "proj": (192, 192), "fc1": (192, 768), "fc2": (768, 192)}
    groups = made.parameter_groups()
    assert sum(parameter.numel() for parameter in groups["encoder"]) == 8 * 3 * sum(sum(sizes[n]) for n in linears)
    assert sum(p.numel() for p in groups["head"]) == sum(p.numel() for p in network().head.parameters())
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    optimizer = adamw(groups, lr=1e-3)
    for _ in range(2):  # the first matrices get a gradient when the second ones have moved
        made(IMAGE).sum().backward()
        optimizer.step()
    changed = {name for name, tensor in made.state_dict().items() if not torch.equal(tensor, before[name])}
    learned = {name for name in before if is_adapters(name) or name.startswith("head.")}
    assert changed == {name for name in learned if "refinenet4.resConfUnit1" not in name}


def test_a_head_with_adapters_keeps_its_weights_but_for_the_last_layer():
    learning = [name for name, p in network(LoRA(head=True)).named_parameters() if p.requires_grad]
    last = [name for name in learning if not is_adapters(name)]
    assert last == ["head.scratch.output_conv2.2.weight", "head.scratch.output_conv2.2.bias"]
    assert any(name.startswith("head.projects.0.lora_A") for name in learning)


@pytest.mark.parametrize("head", [False, True])
def test_merged_weights_predict_the_same(head):
    made = trained(LoRA(rank=4, alpha=6.0, head=head))
    with torch.no_grad():
        expected, found = made(IMAGE), merged(made)(IMAGE)
        assert (found - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())
        ours = merged(made).state_dict()
        for name, module in made.named_modules():
            if hasattr(module, "base_layer"):
                module.merge()  # PEFT's own arithmetic
                torch.testing.assert_close(ours[f"{name}.weight"], module.base_layer.weight, rtol=1e-5, atol=1e-6)
    assert ours.keys() == network().state_dict().keys()


def test_weights_load_beneath_adapters_and_are_saved_with_them(tmp_path):
    source, made = network(), DepthAnythingV2("tiny", adapter=LoRA())
    save_weights(source, tmp_path / "source.pth")
    report = load_weights(made, tmp_path / "source.pth")
    assert report.loaded == len(source.state_dict()) and not report.dropped and not report.missing
    assert torch.equal(made(IMAGE), source(IMAGE))

    made = trained(LoRA(rank=2))
    save_weights(made, tmp_path / "merged.pth")
    loaded = network().eval()
    load_weights(loaded, tmp_path / "merged.pth")
    with torch.no_grad():
        expected = made(IMAGE)
        assert (loaded(IMAGE) - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())
    assert official_state_dict(loaded).keys() == official_state_dict(made).keys()


def test_a_run_with_adapters_may_start_another_without(tmp_path):
    made = trained(LoRA(rank=2, alpha=3.0))
    state = {f"network.{key}": tensor for key, tensor in made.state_dict().items()}
    adapter = {"_target_": "depth_lightning.models.LoRA", "rank": 2, "alpha": 3.0}
    torch.save({"config": {"adapter": adapter}, "state_dict": state}, tmp_path / "best.ckpt")
    loaded = network().eval()
    assert not load_weights(loaded, tmp_path / "best.ckpt").dropped
    torch.testing.assert_close(loaded.state_dict(), merged(made).state_dict(), rtol=0, atol=0)


def test_layers_of_the_encoder_keep_their_adapters_rates():
    optimizer = adamw(network(LoRA(rank=1)).parameter_groups(), lr=1e-3, layer_decay=0.5)
    assert [group["name"] for group in optimizer.param_groups][:2] == ["encoder.layer_1", "encoder.layer_2"]
    assert optimizer.param_groups[0]["lr"] == 1e-3 * 0.5**7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"^rank is a whole number, 1 or above, found 0\.$"),
        ({"rank": 8.0}, r"^rank is a whole number, 1 or above, found 8\.0\.$"),
        ({"alpha": 0}, r"^alpha is a number above 0 and at most 1,000,000, found 0\.$"),
        ({"dropout": 1}, r"^dropout is a number from 0 to below 1, found 1\.$"),
        (
            {"linears": ["qkv", "k"]},
            r"^linears is a list of some of qkv, proj, fc1, fc2, each once, found \['qkv', 'k'\]\.$",
        ),
        (
            {"linears": ["qkv", "qkv"]},
            r"^linears is a list of some of qkv, proj, fc1, fc2, each once, found \['qkv', 'q",
        ),
        ({"linears": []}, r"^linears is a list of some of qkv, proj, fc1, fc2, each once, found \[\]\.$"),
        ({"linears": "qkv"}, r"^linears is a list of some of qkv, proj, fc1, fc2, each once, found 'qkv'\.$"),
        ({"head": "yes"}, r"^head is true or false, found 'yes'\.$"),
    ],
)
def test_what_cannot_be_an_adapter_is_refused(options, message):
    with pytest.raises(SettingError, match=message):
        LoRA(**options)


def test_without_peft_the_extra_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find(name))
    with pytest.raises(
        ModuleNotFoundError, match=r"adapter=lora needs peft, not installed: .*depth-lightning\[adapters\]"
    ):
        network(LoRA())
