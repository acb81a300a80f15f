"""The plain vision transformers of timm as encoders: DINOv2 with registers, DINOv3, SigLIP and others.

timm (Wightman, 2019, https://github.com/huggingface/pytorch-image-models) builds them by name and converts their
published weights. The tokens are those of its `forward_intermediates`.
"""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Final, cast

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import RotaryEmbeddingDinoV3
from torch import Tensor, nn

from depth_lightning.models.encoder import Encoder
from depth_lightning.models.sizes import taps_of
from depth_lightning.settings import SettingError

NAMED: Final[Mapping[str, str]] = {
    "dinov2reg_vits": "vit_small_patch14_reg4_dinov2",
    "dinov2reg_vitb": "vit_base_patch14_reg4_dinov2",
    "dinov2reg_vitl": "vit_large_patch14_reg4_dinov2",
    "dinov3_vitt": "vit_tiny_patch16_dinov3_qkvb",
    "dinov3_vits": "vit_small_patch16_dinov3",
    "dinov3_vits_plus": "vit_small_plus_patch16_dinov3",
    "dinov3_vitb": "vit_base_patch16_dinov3",
    "dinov3_vitl": "vit_large_patch16_dinov3",
}
"""Encoder, as in conf/encoder → its name in timm."""
_MODULES: Final = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva")
"""Modules of timm whose networks take images of any size and have tokens of one resolution."""


def timm_names() -> list[str]:
    """The names that `TimmEncoder` takes, without tags."""
    return [*NAMED, *(name for module in _MODULES for name in timm.list_models(module=module))]


def architecture(name: str) -> str:
    """The name in timm, without a tag."""
    return NAMED.get(name, name).partition(".")[0]


class TimmEncoder(Encoder):
    """A vision transformer of timm, without what only its classifier reads.

    Args:
        name: one of `NAMED`, or as in `timm.list_models()`. Where timm has several weights, their tag, as in
            `vit_base_patch16_224.dino`, also determines how they expect images to be normalised.
        taps: the blocks to read; by default those of `taps_of`.

    Raises:
        SettingError: it has fewer blocks.
    """

    vit: Any
    scale: Tensor
    shift: Tensor
    prefix_tokens = 0  # forward_intermediates leaves out the class token and the registers

    def __init__(self, name: str, taps: Sequence[int] | None = None) -> None:
        super().__init__()
        self._name = NAMED.get(name, name)
        self.vit = _create(self._name)
        depth = len(self.vit.blocks)
        self.taps = taps_of(depth) if taps is None else tuple(taps)
        if sorted(set(self.taps)) != list(self.taps) or self.taps[-1] >= depth:
            what = f"are blocks of {name}, 0 to {depth - 1}, in ascending order"
            raise SettingError("taps", f"{what}, found {list(self.taps)}.")
        self.vit.prune_intermediate_layers(list(self.taps))
        if isinstance(getattr(self.vit, "rope", None), RotaryEmbeddingDinoV3):
            self.vit.rope = _TraceableRotary(self.vit.rope)
        self.patch, self.width = self.vit.patch_embed.feat_ratio(), self.vit.embed_dim
        self.grid = cast(tuple[int, int], tuple(self.vit.patch_embed.grid_size))
        self.recompute_blocks = False
        mean, std = (tuple(self.vit.pretrained_cfg[key]) for key in ("mean", "std"))
        self._is_normalised = (mean, std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        # From ImageNet's normalisation to the one of its training.
        scale, shift = _column(IMAGENET_DEFAULT_STD) / _column(std), _column(IMAGENET_DEFAULT_MEAN) - _column(mean)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift / _column(std), persistent=False)

    @property
    def blocks(self) -> nn.ModuleList | nn.Sequential:  # type: ignore[override]
        """Those up to the last tapped one."""
        return cast(nn.ModuleList, self.vit.blocks)

    @property
    def norm(self) -> nn.Module:  # type: ignore[override]
        """Applied to the tokens of every tapped block."""
        return cast(nn.Module, self.vit.norm)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Tokens of the patches of every tapped block, normalised: (b, rows·columns, width) each."""
        if not self._is_normalised:
            image = image * self.scale + self.shift
        self.vit.set_grad_checkpointing(self.recompute_blocks and torch.is_grad_enabled())
        tokens = self.vit.forward_intermediates(
            image, indices=list(self.taps), norm=True, output_fmt="NLC", intermediates_only=True
        )
        return cast(list[Tensor], tokens)

    def published(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This encoder's state dict from that of a file in any layout that timm converts.

        Raises:
            ValueError: the file holds another network.
        """
        classifier = self.vit.pretrained_cfg["classifier"]
        heads = (classifier,) if isinstance(classifier, str) else classifier
        own = {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] not in heads}
        try:
            with redirect_stdout(StringIO()):  # the conversion of DINOv3 prints
                vit = _create(self._name, pretrained=True, pretrained_cfg_overlay={"state_dict": own, "num_classes": 0})
        except Exception as error:  # a conversion may raise nearly anything on another network's tensors
            reason = " ".join(str(error).split()[:30])
            raise ValueError(f"its tensors are not those of {self._name} as timm reads them: {reason} …") from error
        loaded = vit.state_dict()
        return {key: loaded[key.removeprefix("vit.")] for key in self.state_dict()}


class _TraceableRotary(nn.Module):
    """Rotary positions of DINOv3 (Siméoni et al., 2025, arXiv:2508.10104), whose size a traced graph keeps symbolic."""

    def __init__(self, rope: RotaryEmbeddingDinoV3) -> None:
        super().__init__()
        self.rope = rope

    def get_embed(self, shape: list[int]) -> Tensor:
        """Sines and cosines (rows·columns, 2·channels of an attention head) for a grid of patches (rows, columns)."""
        if type(shape[0]) is int:
            return self.rope.get_embed(shape)
        sides = [(torch.arange(count) + 0.5) / count for count in shape]  # timm makes them floats, which are constants
        centres = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
        return torch.cat(self.rope._get_pos_embed_from_coords(2 * centres - 1), dim=-1)


def _create(name: str, **arguments: Any) -> nn.Module:
    return timm.create_model(name, num_classes=0, dynamic_img_size=True, **arguments)


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)
