from copy import deepcopy

import pytest
import torch
from timm.models import vision_transformer
from torch import Tensor, nn

from depth_lightning.models.block import Block


def timms(width: int = 48) -> vision_transformer.Block:
    torch.manual_seed(0)
    block = vision_transformer.Block(width, num_heads=3, qkv_bias=True, init_values=1e-5)
    for name, parameter in block.named_parameters():
        nn.init.normal_(parameter, std=0.3 if "gamma" in name else 0.1)
    return block


def gradients(block: nn.Module, tokens: Tensor, dtype: torch.dtype | None) -> tuple[Tensor, dict[str, Tensor]]:
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
def test_output_and_every_gradient_are_as_near_to_the_truth_as_timms(dtype: torch.dtype | None) -> None:
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


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def test_without_gradients_the_output_is_the_same() -> None:
    block, tokens = Block(timms()), torch.randn(2, 21, 48)
    with torch.no_grad():
        torch.testing.assert_close(block(tokens), block(tokens.clone().requires_grad_()), rtol=0, atol=1e-6)


def test_less_is_kept_for_the_backward_pass_than_by_timm() -> None:
    def kept(block: nn.Module) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = block(torch.randn(4, 257, 48, requires_grad=True))
        weights = {p.untyped_storage().data_ptr() for p in block.parameters()}
        assert output.requires_grad
        return sum(size for storage, size in storages.items() if storage not in weights)

    assert kept(Block(timms())) < 0.6 * kept(timms())
