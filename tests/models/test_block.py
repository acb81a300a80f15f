from copy import deepcopy
from functools import partial
from typing import cast

import pytest
import torch
from timm.models import vision_transformer
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.parametrize import register_parametrization

from depth_lightning.models.block import Block


def timms(width=48):
    torch.manual_seed(0)
    block = vision_transformer.Block(width, num_heads=3, qkv_bias=True, init_values=1e-5)
    for name, parameter in block.named_parameters():
        nn.init.normal_(parameter, std=0.3 if "gamma" in name else 0.1)
    return block


def gradients(block, tokens, dtype):
    block.zero_grad()
    tokens = tokens.clone().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        output = block(tokens)
    (output.double() * torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)).sum().backward()
    assert tokens.grad is not None
    return output.detach(), {
        "tokens": tokens.grad,
        **{name: p.grad for name, p in block.named_parameters() if p.grad is not None},
    }


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_output_and_every_gradient_are_as_near_to_the_truth_as_timms(dtype):
    peer, tokens = timms(), torch.randn(2, 21, 48)
    exact_output, exact = gradients(deepcopy(peer).double(), tokens.double(), None)
    peer_output, peers = gradients(peer, tokens, dtype)
    peers = {name: gradient.clone() for name, gradient in peers.items()}
    output, found = gradients(Block(peer), tokens, dtype)
    assert found.keys() == exact.keys()
    assert error(output, exact_output) <= 1.5 * error(peer_output, exact_output) + 5e-6
    for name, gradient in exact.items():
        assert found[name].dtype == torch.float32
        assert error(found[name], gradient) <= 1.5 * error(peers[name], gradient) + 5e-6, name


def error(found, exact):
    return float((found - exact).norm() / exact.norm())


def test_without_gradients_the_output_is_the_same():
    block, tokens = Block(timms()), torch.randn(2, 21, 48)
    with torch.no_grad():
        torch.testing.assert_close(block(tokens), block(tokens.clone().requires_grad_()), rtol=0, atol=1e-6)


def kept(block):
    """Bytes for the backward pass, without the weights."""
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = block(torch.randn(4, 257, 48, requires_grad=True))
    weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
    assert output.requires_grad
    return sum(size for storage, size in storages.items() if storage not in weights)


def test_less_is_kept_for_the_backward_pass_than_by_timm():
    assert kept(Block(timms())) < 0.6 * kept(timms())


class Doubled(nn.Module):
    """As an adapter wraps a layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, **options):
        return 2 * cast(Tensor, self.layer(x, **options))


class Shifted(nn.Linear):
    def forward(self, input):
        return super().forward(input) + 0.5


def wrap(block, name):
    block.set_submodule(name, Doubled(block.get_submodule(name)))


def subclass(block, name):
    linear = cast(nn.Linear, block.get_submodule(name))
    block.set_submodule(name, Shifted(linear.in_features, linear.out_features))
    block.get_submodule(name).load_state_dict(linear.state_dict())


def parametrize(block, name):
    register_parametrization(block.get_submodule(name), "weight", nn.Tanh())


def patch_forward(block, name):
    module = block.get_submodule(name)
    original = module.forward
    module.forward = lambda x, **options: 2 * original(x, **options)


def hook(block, name, kind, result):
    getattr(block.get_submodule(name), f"register_{kind}")(result)


LINEAR = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
ANY_PART = [*LINEAR, "norm1", "attn", "attn.q_norm", "attn.proj_drop", "ls1", "norm2", "mlp", "mlp.act", "ls2"]
CHANGES = {
    "wrapper": (ANY_PART, wrap),
    "subclass": (LINEAR, subclass),
    "no bias": (LINEAR, lambda block, name: block.get_submodule(name).register_parameter("bias", None)),
    "parametrization": (LINEAR, parametrize),
    "forward": (ANY_PART, patch_forward),
    "forward hook": (ANY_PART, partial(hook, kind="forward_hook", result=lambda module, x, y: 2 * y)),
    "pre-hook": (ANY_PART, partial(hook, kind="forward_pre_hook", result=lambda module, x: 2 * x[0])),
    "backward hook": (ANY_PART, partial(hook, kind="full_backward_hook", result=lambda module, dx, dy: (2 * dx[0],))),
    "backward pre-hook": (
        ANY_PART,
        partial(hook, kind="full_backward_pre_hook", result=lambda module, dy: (2 * dy[0],)),
    ),
}


@pytest.mark.parametrize("names, change", CHANGES.values(), ids=CHANGES)
def test_a_part_that_was_replaced_or_hooked_counts_as_in_timm(names, change):
    tokens = torch.randn(2, 21, 48)
    unchanged_output, unchanged = gradients(timms(), tokens, None)
    for name in names:
        peer, block = timms(), Block(timms())
        change(peer, name)
        change(block, name)
        expected_output, expected = gradients(peer, tokens, None)
        output, found = gradients(block, tokens, None)
        torch.testing.assert_close({"output": output, **found}, {"output": expected_output, **expected}, rtol=0, atol=0)
        assert not (torch.equal(output, unchanged_output) and torch.equal(found["tokens"], unchanged["tokens"])), name
        with torch.no_grad():
            torch.testing.assert_close(block.eval()(tokens), peer.eval()(tokens), rtol=0, atol=0)


def test_dropout_that_is_turned_on_later_drops():
    tokens = torch.randn(2, 21, 48)
    peer, block = timms(), Block(timms())
    outputs = []
    for module in (peer, block):
        for part in ("attn.attn_drop", "mlp.drop1"):
            cast(nn.Dropout, module.get_submodule(part)).p = 0.5
        torch.manual_seed(1)
        outputs.append(gradients(module, tokens, None)[0])
    assert torch.equal(*outputs) and not torch.equal(outputs[0], gradients(timms(), tokens, None)[0])


def test_a_hook_on_all_modules_sees_every_part_that_timm_calls():
    def called(block):
        seen, names = [], {module: name for name, module in block.named_modules()}
        with register_module_forward_hook(lambda module, inputs, output: seen.append(names[module])):
            block(torch.randn(2, 21, 48))
            with torch.no_grad():
                block(torch.randn(2, 21, 48))
        return seen

    assert called(Block(timms())) == [name for name in called(timms()) if not name.startswith("drop_path")]


def test_less_is_kept_again_once_the_hook_is_gone():
    block, tokens = Block(timms()), torch.randn(2, 21, 48)
    before = gradients(block, tokens, None)
    with block.get_submodule("attn.qkv").register_forward_hook(lambda *of: None):
        assert kept(block) > 0.9 * kept(timms())
    assert kept(block) < 0.6 * kept(timms())
    torch.testing.assert_close(gradients(block, tokens, None), before, rtol=0, atol=0)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_the_compiler_takes_a_block_in_one_graph(hooked, with_gradients):
    block, tokens = Block(timms()), torch.randn(2, 21, 48)
    if hooked:
        block.get_submodule("attn.qkv").register_forward_hook(lambda *of: 2 * of[2])
    with torch.set_grad_enabled(with_gradients):
        compiled = torch.compile(block, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(tokens), block(tokens), rtol=0, atol=0)
