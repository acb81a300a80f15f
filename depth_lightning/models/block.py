"""A transformer block of DINOv2, which keeps for the backward pass only what is costly to compute again."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import Attention, LayerScale, Mlp
from timm.models import vision_transformer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Block(nn.Module):
    """timm's pre-normalised block with layer scale: its parameters, under the same names.

    Plain autograd keeps both sides of the activation and of the layer scales, a third of the encoder's memory.
    """

    def __init__(self, source: vision_transformer.Block) -> None:
        super().__init__()
        self.norm1, self.attn, self.ls1 = source.norm1, cast(Attention, source.attn), cast(LayerScale, source.ls1)
        self.norm2, self.mlp, self.ls2 = source.norm2, source.mlp, cast(LayerScale, source.ls2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (b, n, width) of the same shape."""
        projected = self.attn.qkv(self.norm1(tokens)).unflatten(-1, (3, self.attn.num_heads, -1))
        queries, keys, values = projected.transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        tokens = _add_scaled_linear(tokens, mixed.transpose(1, 2).flatten(2), self.attn.proj, self.ls1.gamma)
        if not isinstance(self.mlp, Mlp):  # vitg's SwiGLU
            return torch.addcmul(tokens, self.mlp(self.norm2(tokens)), self.ls2.gamma)
        hidden = self.mlp.fc1(self.norm2(tokens))
        return _add_scaled_linear(tokens, hidden, cast(nn.Linear, self.mlp.fc2), self.ls2.gamma, gelu=True)


def _add_scaled_linear(residual: Tensor, x: Tensor, linear: nn.Linear, gamma: Tensor, gelu: bool = False) -> Tensor:
    """`residual + gamma · linear(x)`, or of gelu(x)."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    if not torch.is_grad_enabled() or dtype == torch.float16:
        # float16 has not the range for the gradient before gamma, which may be 1e-5.
        return torch.addcmul(residual, linear(F.gelu(x) if gelu else x), gamma)
    arguments = x.to(dtype), linear.weight.to(dtype), linear.bias.to(dtype)
    return cast(Tensor, _AddScaledLinear.apply(residual, *arguments, gamma, gelu))


class _AddScaledLinear(torch.autograd.Function):
    """Keeps `x`, and neither gelu(x) nor the product that gamma scales: gamma's gradient follows from the weight's."""

    @staticmethod
    def forward(
        ctx: Any, residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, gelu: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, gamma)
        ctx.gelu = gelu
        return torch.addcmul(residual, F.linear(F.gelu(x) if gelu else x, weight, bias), gamma)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, gamma = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        entered = (F.gelu(x) if ctx.gelu else x).flatten(0, -2)
        before_gamma = (flat.to(x.dtype).t() @ entered).to(gamma.dtype)
        summed = flat.sum(0, dtype=gamma.dtype)
        gamma_gradient = (before_gamma * weight).sum(1) + summed * bias
        x_gradient = ((gradient * gamma).to(x.dtype)) @ weight
        if ctx.gelu:
            x_gradient = torch.ops.aten.gelu_backward(x_gradient, x)
        weight_gradient = (before_gamma * gamma[:, None]).to(weight.dtype)
        return gradient, x_gradient, weight_gradient, (summed * gamma).to(bias.dtype), gamma_gradient, None
