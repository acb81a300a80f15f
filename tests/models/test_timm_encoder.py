"""Encoders of timm: the same tokens as timm's, weights in every published layout, and a head beside them."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from depth_lightning.inference import load
from depth_lightning.models import DepthAnythingV2, LoRA, load_weights, normalize, save_weights
from depth_lightning.models.adapters import is_adapters, merged
from depth_lightning.models.encoders import build_encoder, patch_of
from depth_lightning.models.sizes import SIZES, size_like, taps_of
from depth_lightning.models.timm_encoder import NAMED
from depth_lightning.settings import SettingError

FOUR_BLOCKS = [0, 1, 2, 3]


def randomised(module):
    """With weights that make every part matter, biases and layer scales too."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module.eval()


def small(name, **arguments):
    """A network with the first four of the encoder's blocks."""
    own = {"taps": FOUR_BLOCKS, "features": 8, "out_channels": [8, 8, 8, 8], **arguments}
    return randomised(DepthAnythingV2(name, **own))


@pytest.fixture(scope="module")
def dinov3():
    return small("dinov3_vits")


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        *(("dinov3_vits", 16), ("dinov3_vits_plus", 16), ("dinov3_vitt", 16), ("dinov2reg_vits", 14)),
        ("deit3_small_patch16_224", 16),
    ],
)
def test_tokens_are_those_of_timm_at_every_size(name, patch):
    encoder = randomised(build_encoder(name))
    theirs = timm.create_model(NAMED.get(name, name), num_classes=0, dynamic_img_size=True).eval()
    theirs.load_state_dict(encoder.vit.state_dict())
    assert encoder.patch == patch_of(name) == patch and tuple(encoder.taps) == (2, 5, 8, 11)
    for rows, columns in [encoder.grid, (5, 7), (12, 9)]:
        image = torch.randn(1, 3, patch * rows, patch * columns)
        with torch.no_grad():
            expected = theirs.forward_intermediates(
                image, indices=[2, 5, 8, 11], norm=True, output_fmt="NCHW", intermediates_only=True
            )
            tapped = encoder(image)
        for tokens, feature_map in zip(tapped, expected, strict=True):
            assert tokens.shape == (1, rows * columns, encoder.width)
            torch.testing.assert_close(tokens, feature_map.flatten(2).transpose(1, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", [0.5] * 3, [0.5] * 3),
        ("eva02_tiny_patch14_224", [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
    ],
)
def test_images_are_normalised_as_in_the_encoders_training(name, mean, std):
    encoder = randomised(build_encoder(name, FOUR_BLOCKS))
    rgb = torch.rand(1, 3, 5 * encoder.patch, 4 * encoder.patch)
    theirs = (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        expected = encoder.vit.forward_intermediates(
            theirs, indices=FOUR_BLOCKS, norm=True, output_fmt="NLC", intermediates_only=True
        )
        torch.testing.assert_close(encoder(normalize(rgb))[-1], expected[-1], rtol=0, atol=1e-4)


def test_taps_and_head_follow_depth_and_width():
    for size in SIZES.values():
        assert taps_of(size.depth) == size.taps and size_like(size.width) == size
    assert taps_of(32) == (7, 15, 23, 31)
    assert (size_like(1280), size_like(256)) == (SIZES["vitl"], SIZES["tiny"])
    network = DepthAnythingV2("dinov3_vitt")
    assert [project.out_channels for project in network.head.projects] == [24, 48, 96, 192]
    assert network(torch.zeros(1, 3, 32, 48)).shape == (1, 32, 48)
    with pytest.raises(ValueError, match=r"h and w multiples of 16, found \(1, 3, 42, 56\)"):
        network(torch.zeros(1, 3, 42, 56))


def test_blocks_above_the_last_tap_do_not_exist(dinov3):
    assert len(dinov3.encoder.blocks) == 4
    loss = dinov3(torch.randn(1, 3, 48, 64)).sum()
    assert all(gradient is not None for gradient in torch.autograd.grad(loss, list(dinov3.parameters())))


@pytest.mark.parametrize("taps", [[1, 2, 3], [3, 2, 1, 0], [1, 1, 2, 3], [0, 1, 2, 12], "last"])
def test_taps_are_four_blocks_of_the_encoder(taps):
    with pytest.raises(SettingError, match=r"^taps (is four blocks|are blocks of dinov3_vits, 0 to 11)"):
        DepthAnythingV2("dinov3_vits", taps=taps)


def test_taps_of_depth_anything_are_published():
    with pytest.raises(SettingError, match=r"^taps are for encoders of timm; those of vits are \[2, 5, 8, 11\]"):
        DepthAnythingV2("vits", taps=FOUR_BLOCKS)


@pytest.mark.parametrize("name", ["resnet50", "hf-hub:someone/model", "local-dir:/tmp", "dinov4_vits", 3, None])
def test_names_of_anything_else_are_refused(name):
    with pytest.raises(SettingError, match=r"^encoder is one of vits, .*, or the name of a vision transformer in timm"):
        DepthAnythingV2(name)


def in_metas_layout(name):
    """A complete encoder's weights as their authors name them."""
    vit = randomised(timm.create_model(NAMED[name], num_classes=0))
    state = {key.replace("gamma_", "ls"): tensor for key, tensor in vit.state_dict().items()}
    state = {f"{key}.gamma" if key.endswith(("ls1", "ls2")) else key: tensor for key, tensor in state.items()}
    if name.startswith("dinov3"):
        state["storage_tokens"] = state.pop("reg_token")
        state["rope_embed.periods"] = torch.zeros(16)
        state["mask_token"] = torch.zeros(1, 384)
        state |= {f"blocks.{block}.attn.qkv.bias": torch.zeros(3 * 384) for block in range(12)}
    else:
        state["register_tokens"] = state.pop("reg_token")
        state["pos_embed"] = torch.cat([torch.randn(1, 1, 384), state["pos_embed"]], dim=1)
        state["mask_token"] = torch.zeros(1, 384)
    return vit, state


@pytest.mark.parametrize("name", ["dinov3_vits", "dinov2reg_vits"])
def test_the_authors_files_are_read_as_timm_reads_them(name, tmp_path, capfd):
    vit, state = in_metas_layout(name)
    torch.save(state, tmp_path / "meta.pth")
    network = DepthAnythingV2(name)
    head = {key: tensor.clone() for key, tensor in network.head.state_dict().items()}
    report = load_weights(network, tmp_path / "meta.pth", init="encoder")
    assert (report.layout, report.loaded, report.missing) == ("timm", len(vit.state_dict()), ())
    overlay = {"file": str(tmp_path / "meta.pth")}
    theirs = timm.create_model(NAMED[name], num_classes=0, pretrained=True, pretrained_cfg_overlay=overlay).state_dict()
    for key, tensor in network.encoder.vit.state_dict().items():
        assert torch.equal(tensor, theirs[key]), key
    assert torch.equal(network.encoder.blocks[11].mlp.fc2.weight, vit.blocks[11].mlp.fc2.weight)
    assert all(torch.equal(tensor, head[key]) for key, tensor in network.head.state_dict().items())
    with pytest.raises(ValueError, match=r"meta\.pth holds an encoder without a head\. Type model\.init=encoder"):
        load_weights(network, tmp_path / "meta.pth")


@pytest.mark.parametrize("classes", [0, 10])
def test_a_file_of_timm_loads_with_and_without_its_classifier(classes, tmp_path):
    vit = randomised(timm.create_model("vit_tiny_patch16_224", num_classes=classes))
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    network = DepthAnythingV2("vit_tiny_patch16_224", taps=[1, 3, 5, 7])
    load_weights(network, tmp_path / "model.safetensors", init="encoder")
    for key, tensor in network.encoder.vit.state_dict().items():
        assert torch.equal(tensor, vit.state_dict()[key]), key
    incomplete = {key: tensor for key, tensor in vit.state_dict().items() if not key.startswith("blocks.3.")}
    save_file(incomplete, tmp_path / "incomplete.safetensors")
    with pytest.raises(
        ValueError, match=r"incomplete\.safetensors: its tensors are not those of vit_tiny.*blocks\.3\."
    ):
        load_weights(network, tmp_path / "incomplete.safetensors", init="encoder")


def test_the_own_layout_says_which_network_it_holds(dinov3, tmp_path):
    path = tmp_path / "model.safetensors"
    network = DepthAnythingV2("dinov3_vits", taps=FOUR_BLOCKS)
    save_weights(randomised(network), path, "safetensors")
    made = json.loads((tmp_path / "model.safetensors.json").read_text())
    assert (made["encoder"], made["taps"]) == ("dinov3_vits", FOUR_BLOCKS)
    read = load(path, size=64, device="cpu").network
    assert read.encoder.taps == (0, 1, 2, 3)
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        assert torch.equal(read(image), network(image))
    with pytest.raises(
        ValueError, match=r"has a head for the blocks \[0, 1, 2, 3\] .*type \+model\.taps=\[0, 1, 2, 3\]"
    ):
        load_weights(DepthAnythingV2("dinov3_vits"), path)
    for other in ("vits", "dinov2reg_vits"):
        with pytest.raises(
            ValueError, match=rf"holds dinov3_vits, .* is {other}: type model\.encoder=dinov3_vits, give"
        ):
            load_weights(DepthAnythingV2(other), path, init="encoder")


@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_layouts_of_other_programs_are_refused(layout, dinov3, tmp_path):
    with pytest.raises(
        ValueError, match=rf"^layout={layout} is read by .* has dinov3_vits: use layout=safetensors, or"
    ):
        save_weights(dinov3, tmp_path / "out", layout)
    assert not list(tmp_path.iterdir())


def test_a_published_head_of_the_same_width_loads(vits_file):
    network = DepthAnythingV2("dinov3_vits")
    encoder = {key: tensor.clone() for key, tensor in network.encoder.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"holds an encoder of Depth Anything, .* type model\.init=head to load the head"
    ):
        load_weights(network, vits_file)
    report = load_weights(network, vits_file, init="head")
    published = torch.load(vits_file, weights_only=True)
    for key, tensor in network.head.state_dict().items():
        assert torch.equal(tensor, published[f"depth_head.{key}"]), key
    assert all(torch.equal(tensor, encoder[key]) for key, tensor in network.encoder.state_dict().items())
    assert report.loaded == len(network.head.state_dict())
    assert "The encoder keeps its random start: 175 tensors of an encoder were left out." in str(report)
    with pytest.raises(
        ValueError, match=r"projects\.0\.weight is \(48, 384, 1, 1\), not \(24, 192, 1, 1\), .* and \d+ more"
    ):
        load_weights(DepthAnythingV2("dinov3_vitt"), vits_file, init="head")


@pytest.mark.parametrize("name", ["dinov3_vits", "dinov2reg_vits"])
def test_recomputed_blocks_give_the_same_gradients(name):
    network, image, runs = small(name).train(), torch.randn(1, 3, 112, 112), []
    network.encoder.blocks[0].register_forward_pre_hook(lambda *_: runs.append(network.encoder.recompute_blocks))
    gradients = []
    for recompute in (False, True):
        network.encoder.recompute_blocks = recompute
        gradients.append(torch.autograd.grad(network(image).mean(), list(network.parameters())))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-5, atol=1e-7)
    assert runs == [False, True, True]


def test_adapters_start_at_nothing_and_merge():
    pytest.importorskip("peft", reason="needs the extra adapters")
    image = torch.randn(1, 3, 48, 64)
    torch.manual_seed(0)
    plain = DepthAnythingV2("dinov3_vits", taps=FOUR_BLOCKS)
    torch.manual_seed(0)
    adapted = DepthAnythingV2("dinov3_vits", taps=FOUR_BLOCKS, adapter=LoRA(rank=2))
    with torch.no_grad():
        assert torch.equal(adapted(image), plain(image))
    learns = {name for name, parameter in adapted.encoder.named_parameters() if parameter.requires_grad}
    assert len(learns) == 4 * 4 * 2 and all(map(is_adapters, learns))
    for name, parameter in adapted.named_parameters():
        if is_adapters(name):
            nn.init.normal_(parameter, std=0.05)
    with torch.no_grad():
        torch.testing.assert_close(merged(adapted.eval())(image), adapted(image), rtol=0, atol=1e-5)
        assert not torch.equal(adapted(image), plain(image))


@pytest.mark.parametrize(
    ("name", "linears", "usable"),
    [("dinov3_vits_plus", ["fc1"], "qkv, proj, fc2"), ("dinov3_vitt", ["proj", "qkv"], "proj, fc1, fc2")],
)
def test_linears_that_an_encoder_does_not_call_take_no_adapter(name, linears, usable):
    pytest.importorskip("peft", reason="needs the extra adapters")
    with pytest.raises(SettingError, match=rf"^adapter\.linears are some of {usable} with encoder={name}, found "):
        DepthAnythingV2(name, adapter=LoRA(linears=linears))
