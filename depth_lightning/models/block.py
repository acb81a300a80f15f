"""A transformer block of DINOv2 that keeps only what is costly to recompute for the backward pass."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import Attention, LayerScale, Mlp
from timm.models import vision_transformer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from depth_lightning.models.autocast import own_dtypes, product_dtype


class Block(nn.Module):
    """timm's pre-normalised block with layer scale, with the same parameters under the same names.

    Plain autograd keeps input and output of the activation, the layer scales and the norms, two fifths of the encoder's
    memory. The code that saves it reads the parts' weights instead of calling the parts. If one was replaced (by an
    adapter, a quantised layer) or has a hook, the block calls its parts instead, as timm's does.
    """

    def __init__(self, source: vision_transformer.Block) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = source.norm1, cast(Attention, source.attn), cast(LayerScale, source.ls1)
        self.norm2, self.mlp, self.ls2 = source.norm2, source.mlp, cast(LayerScale, source.ls2)
        self.has_adapters = False
        """Whether linears were replaced by `models.adapters`."""
        self._types = [type(part) for part in self._parts()]

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (b, n, width) of the same shape."""
        attn, mlp = self.attn, self.mlp
        parts = self._parts()
        if [type(part) for part in parts] != self._types or not _only_apply_weights(parts):
            tokens = self._add_scaled(tokens, attn(self.norm1(tokens)), self.ls1)
            return self._add_scaled(tokens, mlp(self.norm2(tokens)), self.ls2)
        projected = _normed_linear(tokens, self.norm1, attn.qkv)
        # Split first, then viewed by head: one concatenation joins the three gradients.
        by_head = (*tokens.shape[:2], attn.num_heads, -1)
        queries, keys, values = (part.view(by_head).transpose(1, 2) for part in projected.chunk(3, dim=2))
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        tokens = _add_scaled_linear(tokens, mixed.transpose(1, 2).flatten(2), attn.proj, self.ls1.gamma)
        if not isinstance(mlp, Mlp):  # vitg's SwiGLU
            return _add_scaled(tokens, mlp(self.norm2(tokens)), self.ls2.gamma)
        hidden = _normed_linear(tokens, self.norm2, mlp.fc1)
        return _add_scaled_linear(tokens, hidden, cast(nn.Linear, mlp.fc2), self.ls2.gamma, gelu=True)

    def _add_scaled(self, residual: Tensor, x: Tensor, scale: LayerScale) -> Tensor:
        """`residual + scale(x)`; with adapters rounded as without, so that adapters which add 0 change nothing."""
        if self.has_adapters and _only_apply_weights([scale]):
            return _add_scaled(residual, x, scale.gamma)
        return cast(Tensor, residual + scale(x))

    def _parts(self) -> list[nn.Module]:
        return [part for owner in (self, self.attn, self.mlp) for part in owner._modules.values() if part is not None]


def _only_apply_weights(parts: Sequence[nn.Module]) -> bool:
    """Whether calling the parts only applies their weights: biases, but no hooks, dropout or replaced forward."""
    for own in map(vars, parts):  # vars, since this runs for every block and module attributes are slow to look up
        if (
            own["_forward_pre_hooks"]
            or own["_forward_hooks"]
            or own["_backward_pre_hooks"]
            or own["_backward_hooks"]
            or "forward" in own
            or own.get("p")
            or own["_parameters"].get("bias", own) is None
        ):
            return False
    return not _has_any_global_hook()  # type: ignore[no-untyped-call]


def _normed_linear(x: Tensor, norm: nn.Module, linear: nn.Module) -> Tensor:
    """`linear(norm(x))`."""
    if not torch.is_grad_enabled():
        return cast(Tensor, linear(norm(x)))
    norm, linear, dtype = cast(nn.LayerNorm, norm), cast(nn.Linear, linear), product_dtype(x)
    arguments = norm.weight, norm.bias, linear.weight.to(dtype), linear.bias.to(dtype)
    return cast(Tensor, _NormedLinear.apply(x, *arguments, norm.eps))


def _add_scaled_linear(residual: Tensor, x: Tensor, linear: nn.Linear, gamma: Tensor, gelu: bool = False) -> Tensor:
    """`residual + gamma · linear(x)`, with gelu(x) in place of x if `gelu`, which may overwrite x."""
    if not torch.is_grad_enabled():
        # In place: the largest tensor of a block is not written twice, nor allocated twice on a CPU.
        return _add_scaled(residual, linear(torch.ops.aten.gelu_(x) if gelu else x), gamma)
    dtype = product_dtype(x)
    if dtype == torch.float16:  # lacks the range for the gradient before gamma, which may be 1e-5
        return _add_scaled(residual, linear(F.gelu(x) if gelu else x), gamma)
    arguments = x.to(dtype), linear.weight.to(dtype), linear.bias.to(dtype)
    return cast(Tensor, _AddScaledLinear.apply(residual, *arguments, gamma, gelu))


def _add_scaled(residual: Tensor, x: Tensor, gamma: Tensor) -> Tensor:
    with own_dtypes(x):
        return torch.addcmul(residual, x, gamma)


class _NormedLinear(torch.autograd.Function):
    """Keeps `x`, which the residual keeps anyway, and recomputes norm(x)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        normed, mean, inverse_std = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
        ctx.save_for_backward(x, mean, inverse_std, norm_weight, norm_bias, weight)
        ctx.eps = eps
        return F.linear(normed.to(weight.dtype), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse_std, norm_weight, norm_bias, weight = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        normed_gradient = (gradient @ weight).to(x.dtype)
        normed = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, ctx.eps)[0].to(weight.dtype)
        weight_gradient = flat.t() @ normed.flatten(0, -2)
        norm_gradients = torch.ops.aten.native_layer_norm_backward(
            normed_gradient, x, x.shape[-1:], mean, inverse_std, norm_weight, norm_bias, [True, True, True]
        )
        return *norm_gradients, weight_gradient, flat.sum(0), None


class _AddScaledLinear(torch.autograd.Function):
    """Keeps `x`, but not gelu(x) or the product that gamma scales: gamma's gradient follows from the weight's."""

    @staticmethod
    def forward(
        ctx: Any, residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, gelu: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, gamma)
        ctx.gelu = gelu
        return _add_scaled(residual, F.linear(F.gelu(x) if gelu else x, weight, bias), gamma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, gamma = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        entered = (F.gelu(x) if ctx.gelu else x).flatten(0, -2)
        before_gamma = (flat.to(x.dtype).t() @ entered).to(gamma.dtype)
        summed = flat.sum(0, dtype=gamma.dtype)
        gamma_gradient = (before_gamma * weight).sum(1) + summed * bias
        # Rounded as it is written, in one pass.
        scaled = torch.mul(gradient, gamma, out=torch.empty_like(gradient, dtype=x.dtype))
        x_gradient = scaled @ weight
        if ctx.gelu:
            x_gradient = torch.ops.aten.gelu_backward(x_gradient, x)
        weight_gradient = (before_gamma * gamma[:, None]).to(weight.dtype)
        return gradient, x_gradient, weight_gradient, (summed * gamma).to(bias.dtype), gamma_gradient, None
