"""The dense prediction head of DPT (Ranftl et al., 2021, arXiv:2103.13413), as Depth Anything V2 uses it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from depth_lightning.models.autocast import HALF, own_dtypes


class DPTHead(nn.Module):
    """Four feature maps of one resolution in, one map of logits out.

    Modules are named as in the published state dict.
    """

    def __init__(self, width: int, features: int, out_channels: Sequence[int]) -> None:
        super().__init__()
        self.projects = nn.ModuleList(nn.Conv2d(width, channels, 1) for channels in out_channels)
        first, second, _, fourth = out_channels
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            ]
        )
        self.scratch = FusionPyramid(features, out_channels)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits (b, *size) from four maps (b, width, rows, columns), the shallowest first."""
        pyramid = [
            resize(project(features))
            for features, project, resize in zip(maps, self.projects, self.resize_layers, strict=True)
        ]
        logits: Tensor = self.scratch(pyramid, size)
        return logits


class FusionPyramid(nn.Module):
    """Fuses maps from the deepest to the shallowest and predicts logits at full resolution."""

    def __init__(self, features: int, in_channels: Sequence[int]) -> None:
        super().__init__()
        first, second, third, fourth = in_channels
        self.layer1_rn = nn.Conv2d(first, features, 3, padding=1, bias=False)
        self.layer2_rn = nn.Conv2d(second, features, 3, padding=1, bias=False)
        self.layer3_rn = nn.Conv2d(third, features, 3, padding=1, bias=False)
        self.layer4_rn = nn.Conv2d(fourth, features, 3, padding=1, bias=False)
        self.refinenet1 = Fusion(features)
        self.refinenet2 = Fusion(features)
        self.refinenet3 = Fusion(features)
        self.refinenet4 = Fusion(features)
        # This unit refines the skip connection, which the deepest level does not have.
        _parameters_to_buffers(self.refinenet4.resConfUnit1)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(
            nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(inplace=True), Float32Conv2d(32)
        )

    def forward(self, pyramid: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits (b, *size) from maps at 4, 2, 1 and ½ times the resolution of the patches."""
        first = self.layer1_rn(pyramid[0])
        second = self.layer2_rn(pyramid[1])
        third = self.layer3_rn(pyramid[2])
        fourth = self.layer4_rn(pyramid[3])
        rows, columns = first.shape[-2:]
        x = self.refinenet4(fourth, None, third.shape[-2:])
        x = self.refinenet3(x, third, second.shape[-2:])
        x = self.refinenet2(x, second, first.shape[-2:])
        x = self.refinenet1(x, first, (2 * rows, 2 * columns))
        x = self.output_conv1(x)
        # The largest map of all: recomputed in the backward pass rather than kept.
        x = (
            checkpoint(self._read_out, x, size, use_reentrant=False, preserve_rng_state=False)
            if torch.is_grad_enabled()
            else self._read_out(x, size)
        )
        logits: Tensor = self.output_conv2[2](self.output_conv2[1](x))
        return logits.squeeze(1)

    def _read_out(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        full: Tensor = self.output_conv2[0](_resize(x, size))
        return full


class Float32Conv2d(nn.Conv2d):
    """A 1×1 convolution of `channels` to one, in float32 under any autocast, with weights of any dtype.

    In bfloat16, logits ≥ 1 have steps of 1/128 or more: with max_depth=20, a wall at 3 m has steps of 2 cm.
    """

    bias: nn.Parameter

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 1, 1)

    def forward(self, input: Tensor) -> Tensor:
        """Logits (b, 1, h, w), float32."""
        weight, bias = self.weight.float(), self.bias.float()
        with own_dtypes(input):
            if input.dtype in HALF and torch.is_grad_enabled():
                # A product keeps its input as it is for the backward pass; a convolution would keep a float32 copy.
                return (input * weight[0]).sum(1, keepdim=True) + bias
            logits: Tensor = self._conv_forward(input.float(), weight, bias)
            return logits


class Fusion(nn.Module):
    """Adds a skip connection, refines, mixes the channels, and resizes."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(b, features, *size) from `x` and a skip of its size."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # The published order is to resize first. A 1×1 convolution and a resize commute, and a quarter of the pixels
        # means a quarter of the work.
        return _resize(self.out_conv(self.resConfUnit2(x)), size)


class ResidualUnit(nn.Module):
    """ReLU, convolution, ReLU, convolution, added to the input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """A map of the same shape."""
        change: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + change


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with aligned corners, in the dtype of `x`; on a GPU, autocast would convert to float32 and back."""
    with own_dtypes(x):
        if x.dtype in HALF and torch.is_grad_enabled():  # whose products cost little
            resized: Tensor = _Resize.apply(x, size)
            return resized
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class _Resize(torch.autograd.Function):
    """`F.interpolate`, whose backward pass is two matrix products instead of atomic additions.

    That is faster on a GPU, and the same in every run. The weights are rounded to the gradient's dtype.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.size = x.shape[-2:]
        # With deterministic algorithms, F.interpolate takes a slow form for the sake of its own backward pass.
        resized: Tensor = torch.ops.aten.upsample_bilinear2d(x, size, True)
        return resized

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows = _linear_weights(ctx.size[0], gradient.shape[-2], gradient)
        columns = _linear_weights(ctx.size[1], gradient.shape[-1], gradient)
        last = gradient.permute(0, 2, 3, 1)
        summed = (rows @ last.flatten(2)).view(-1, ctx.size[0], *last.shape[2:])
        return (columns @ summed).permute(0, 3, 1, 2), None


def _linear_weights(count: int, samples: int, like: Tensor) -> Tensor:
    """(count, samples): how much each of `count` values contributes to each sample, with aligned corners."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    values, positions = (torch.arange(n, device=like.device, dtype=dtype) for n in (count, samples))
    positions = positions * ((count - 1) / max(samples - 1, 1))
    return (1 - (positions - values[:, None]).abs()).clamp(min=0).to(like.dtype)


def _parameters_to_buffers(module: nn.Module) -> None:
    """Keep the state dict, but leave no parameters for which an optimiser or DDP would expect gradients."""
    for child in module.modules():
        for name, parameter in list(child.named_parameters(recurse=False)):
            delattr(child, name)
            child.register_buffer(name, parameter.detach())
