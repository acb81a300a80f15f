"""DINOv2 (Oquab et al., 2023, arXiv:2304.07193): timm's blocks, with the position table resampled as the authors do."""

from typing import cast

import torch
from timm.layers import Mlp, SwiGLUPacked
from timm.models import vision_transformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from depth_lightning.models.block import Block
from depth_lightning.models.encoder import Encoder
from depth_lightning.models.sizes import ModelSize

PATCH = 14


class DINOv2(Encoder):
    """The encoder of Depth Anything V2. Parameters are named as in the published state dict."""

    mask_token: Tensor
    patch = PATCH
    prefix_tokens = 1

    def __init__(self, size: ModelSize) -> None:
        super().__init__()
        rows, columns = size.grid
        vit = vision_transformer.VisionTransformer(
            img_size=(PATCH * rows, PATCH * columns),
            patch_size=PATCH,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            init_values=1e-5,
            num_classes=0,
            mlp_ratio=2.66667 * 2 if size.swiglu else 4.0,
            mlp_layer=cast(type[nn.Module], SwiGLUPacked) if size.swiglu else Mlp,
            act_layer=nn.SiLU if size.swiglu else nn.GELU,
        )
        self.recompute_blocks = False
        self.grid, self.width, self.taps = size.grid, size.width, size.taps
        self.cls_token = cast(nn.Parameter, vit.cls_token)
        self.pos_embed = cast(nn.Parameter, vit.pos_embed)
        # DINOv2's own training replaces patches with it; here it is only carried from file to file.
        self.register_buffer("mask_token", torch.zeros(1, size.width))
        self.patch_embed = vit.patch_embed
        self.blocks = nn.ModuleList(Block(cast(vision_transformer.Block, block)) for block in vit.blocks)
        self.norm = vit.norm

    def forward(self, image: Tensor) -> list[Tensor]:
        """Tokens of every tapped block, the class token first."""
        patches = self.patch_embed.proj(image)
        rows, columns = patches.shape[-2:]
        class_token = self.cls_token.expand(image.shape[0], -1, -1)
        tokens = torch.cat([class_token, patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + self.positions(rows, columns)
        tapped = []
        for index, block in enumerate(self.blocks):
            if self.recompute_blocks and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens)
            if index in self.taps:
                tapped.append(self.norm(tokens))
        return tapped

    def positions(self, rows: int, columns: int) -> Tensor:
        """The position table for a grid of patches, (1, 1 + rows·columns, width), the class token's entry first.

        Resampled bicubically in float32 without antialiasing. DINOv2 passes the scale factor, not the size, and adds
        0.1 patches to the size against rounding; the factor determines the sampling positions, so leaving it out
        changes depth. At its own size the table is unchanged. In an exported graph the sizes may be symbolic and stay
        symbolic.
        """
        extra: float | Tensor = 0.1
        if type(rows) is not int:  # symbolic: a comparison in Python would fix it
            extra = 0.1 * (torch.tensor([rows, columns]) != torch.tensor(self.grid)).any()
        elif (rows, columns) == self.grid:
            return self.pos_embed
        table = self.pos_embed[0, 1:].float().view(*self.grid, -1)
        entries, weights = _cubic_samples(rows, self.grid[0], extra, table.device)
        table = (table[entries] * weights[:, :, None, None]).sum(1)
        entries, weights = _cubic_samples(columns, self.grid[1], extra, table.device)
        table = (table[:, entries] * weights[:, :, None]).sum(2)
        return torch.cat([self.pos_embed[:, :1], table.flatten(0, 1)[None].to(self.pos_embed)], dim=1)


def _cubic_samples(count: int, length: int, extra: float | Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of the four of `length` entries that each of `count` samples combines, and weights; both (count, 4).

    Samples are length / (count + extra) apart. Cubic convolution (Keys, 1981) with a = −0.75 and repeated ends.
    """
    position = (torch.arange(count, device=device) + 0.5) * length / (count + extra) - 0.5
    first = position.floor()[:, None]
    offset = torch.arange(-1, 3, device=device)
    x = (position[:, None] - first - offset).abs()
    near, far = (1.25 * x - 2.25) * x * x + 1, ((-0.75 * x + 3.75) * x - 6) * x + 3
    return (first.long() + offset).clamp(0, length - 1), torch.where(x <= 1, near, far)
