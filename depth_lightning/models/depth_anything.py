"""Depth Anything V2 (Yang et al., 2024, arXiv:2406.09414): DINOv2 tokens of four blocks feed a DPT head."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_lightning.models.adapters import LoRA, add_adapters
from depth_lightning.models.dpt import DPTHead
from depth_lightning.models.encoders import build_encoder
from depth_lightning.models.parameter_groups import ParameterGroups
from depth_lightning.models.sizes import SIZES, size_like
from depth_lightning.settings import SettingError, boolean, number, one_of, optional, several, whole_number

Output = Literal["metric", "relative"]
HeadName = Literal["sigmoid", "log_depth", "inverse_depth"]
MIN_DEPTH_M = 1e-3
"""The least depth of head="log_depth"."""
MAX_DEPTH_M = 1e6
"""The largest `max_depth`."""
WIDEST = 2048
"""Most channels in a head; vitg's have up to 1536. A checkpoint that claims more would only fill the memory."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class DepthAnythingV2(nn.Module):
    """Depth from a single image, in metres or as disparity.

    Args:
        encoder: vits, vitb, vitl, vitg or tiny; dinov2reg_vits, dinov3_vits and others of `timm_encoder.NAMED`; or the
            name of any vision transformer in timm.
        output: "metric" (metres) or "relative" (disparity up to scale and shift).
        max_depth: largest depth that a metric network can predict, in metres, above 0.001. No published file stores it.
            By default 10, and with head="log_depth" 1000.
        features: channels of the head's fusion blocks; by default those published for this width of the encoder, or
            for the most similar width.
        out_channels: channels of the head's four projections; likewise.
        freeze_encoder: train the head alone; no graph is built for the encoder.
        recompute_blocks: activation checkpointing: in training, keep only each block's input and recompute the rest in
            the backward pass. Less memory, more time.
        adapter: train low-rank adapters, and the head, instead of the encoder's own weights.
        focal_px: of a metric network trained with camera=canonical: the canonical focal length, in pixels of its input.
            It predicts depth · focal_px / f for a camera of focal length f, see `in_metres`. None: metres.
        head: of a metric network. "sigmoid": times `max_depth`; "log_depth": depth is the exponential of the logits,
            from 1 mm to `max_depth`, for scenes where no `max_depth` fits; "inverse_depth": depth is one over the
            logits, up to `max_depth`, as `to_metres` makes of a relative network.
        taps: the encoder's four blocks that the head reads, counted from 0, of an encoder of timm; by default those
            published for its depth, or else the last of each quarter.

    Raises:
        ModuleNotFoundError: for the adapter, PEFT is not installed.
        SettingError: an argument is out of range.
    """

    def __init__(
        self,
        encoder: str = "vits",
        output: Output = "metric",
        max_depth: float | None = None,
        features: int | None = None,
        out_channels: Sequence[int] | None = None,
        freeze_encoder: bool = False,
        recompute_blocks: bool = False,
        adapter: LoRA | None = None,
        head: HeadName = "sigmoid",
        taps: Sequence[int] | None = None,
        focal_px: float | None = None,
    ) -> None:
        super().__init__()
        self.encoder_name = encoder
        self.output: Output = one_of("output", output, get_args(Output))
        self.head_name: HeadName = one_of("head", head, get_args(HeadName))
        if head != "sigmoid" and output == "relative":
            raise SettingError("head", f"is sigmoid where output=relative, whose head ends in a ReLU; found {head!r}.")
        focal_px = optional("focal_px", focal_px, partial(number, above=0))
        self.focal_px: float | None = focal_px if output == "metric" else None
        default = 1000.0 if head == "log_depth" else 10.0
        self.max_depth = number(
            "max_depth", default if max_depth is None else max_depth, above=MIN_DEPTH_M, most=MAX_DEPTH_M
        )
        if features is not None:
            features = whole_number("features", features, least=2, most=WIDEST)
        if out_channels is not None:
            channels = partial(whole_number, most=WIDEST)
            out_channels = several("out_channels", out_channels, 4, f"four whole numbers, 1 to {WIDEST}", channels)
        if taps is not None:
            taps = several("taps", taps, 4, "four blocks, counted from 0", partial(whole_number, least=0))
        self.encoder = build_encoder(encoder, taps).requires_grad_(not boolean("freeze_encoder", freeze_encoder))
        self.encoder.recompute_blocks = boolean("recompute_blocks", recompute_blocks)
        size = SIZES.get(encoder) or size_like(self.encoder.width)
        dpt = DPTHead(self.encoder.width, features or size.features, out_channels or size.out_channels)
        if output == "relative":
            # A random head's logits are all near 0: where they are negative, the last ReLU lets no gradient through,
            # and the network never learns. Loaded weights replace this.
            nn.init.ones_(dpt.get_parameter("scratch.output_conv2.2.bias"))
        # Tokens (b, n, c) viewed as maps (b, c, rows, columns) are already channels-last.
        self.head = dpt.to(memory_format=torch.channels_last)
        self.adapter = adapter
        if adapter is not None:
            add_adapters(self, adapter)

    def forward(self, image: Tensor, with_features: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Depth in metres, or disparity ≥ 0 (larger is nearer): (b, h, w) float32.

        Args:
            image: (b, 3, h, w), ImageNet-normalised (see `normalize`); h and w are multiples of `encoder.patch`.
            with_features: also return the encoder's last features, (b, rows·columns, width) of the patches.

        Raises:
            ValueError: the image has another shape.
        """
        patch = self.encoder.patch
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] % patch or image.shape[3] % patch:
            raise ValueError(
                f"The network expects images (b, 3, h, w) with h and w multiples of {patch}, found "
                f"{tuple(image.shape)}."
            )
        height, width = image.shape[-2:]
        patches = [tokens[:, self.encoder.prefix_tokens :] for tokens in self.encoder(image)]
        maps = [each.unflatten(1, (height // patch, width // patch)).permute(0, 3, 1, 2) for each in patches]
        depth = self._activated(self.head(maps, (height, width)).float())
        return (depth, patches[-1]) if with_features else depth

    def _activated(self, logits: Tensor) -> Tensor:
        if self.output == "relative":
            return F.relu(logits)
        if self.head_name == "log_depth":
            # Bounded before the exponential, which may overflow.
            return torch.exp(logits.clamp(math.log(MIN_DEPTH_M), math.log(self.max_depth)))
        if self.head_name == "inverse_depth":
            return torch.reciprocal(logits.clamp(min=1 / self.max_depth))
        return logits_to_depth(logits, self.max_depth)

    def in_metres(self, prediction: Tensor, focal_px: Tensor) -> Tensor:
        """Metres, (b, h, w), from predictions of a network with a canonical focal length.

        Args:
            prediction: (b, h, w).
            focal_px: (b,) focal lengths, in pixels of the network's input.
        """
        assert self.focal_px is not None
        return prediction * (focal_px / self.focal_px)[:, None, None]

    def start_at(self, depth_m: float) -> None:
        """Have a new last layer, of a head other than "sigmoid", predict depths about this one."""
        start = math.log(depth_m) if self.head_name == "log_depth" else 1 / depth_m
        nn.init.constant_(self._last_layer()[1], start)

    @torch.no_grad()
    def multiply(self, factor: float) -> None:
        """Have a metric network predict every depth times `factor`, without another layer.

        The factor goes into `max_depth`; a "log_depth" head also adds its logarithm to the last bias, and an
        "inverse_depth" head divides the last layer by it.
        """
        weight, bias = self._last_layer()
        if self.head_name == "log_depth":
            bias.add_(math.log(factor))
        elif self.head_name == "inverse_depth":
            weight.div_(factor)
            bias.div_(factor)
        self.max_depth = min(self.max_depth * factor, MAX_DEPTH_M)

    @torch.no_grad()
    def to_metres(self, scale: float, shift: float) -> None:
        """Make a relative network metric, with head="inverse_depth": depth is 1 / (scale · disparity + shift).

        Args:
            scale: above 0, in 1/m.
            shift: in 1/m. Above 0, it lowers `max_depth` to 1 / shift, where disparity is 0.
        """
        weight, bias = self._last_layer()
        weight.mul_(scale)
        bias.mul_(scale).add_(shift)
        self.output, self.head_name = "metric", "inverse_depth"
        self.max_depth = min(self.max_depth, 1 / shift) if shift > 0 else self.max_depth

    def _last_layer(self) -> tuple[nn.Parameter, nn.Parameter]:
        name = "scratch.output_conv2.2"
        return self.head.get_parameter(f"{name}.weight"), self.head.get_parameter(f"{name}.bias")

    def parameter_groups(self) -> ParameterGroups:
        """Every trainable parameter in exactly one list, "encoder" or "head"; a frozen encoder has none."""
        return ParameterGroups({"encoder": self.encoder.layers(), "head": [list(self.head.parameters())]}, self)


def logits_to_depth(logits: Tensor, max_depth: float) -> Tensor:
    """Depth in metres, in (0, max_depth], from float32 logits of any size.

    A plain sigmoid is 0 in float32 below −103, and its logarithm infinite; at −40 the depth is still a normal number,
    1e-17 of max_depth.
    """
    return max_depth * logits.clamp(min=-40.0).sigmoid()


def normalize(image: Tensor) -> Tensor:
    """ImageNet-normalised float32 of the same shape, on the same device.

    Args:
        image: (b, 3, h, w) RGB: uint8, or floating point in [0, 1].

    Raises:
        TypeError: the image has another dtype.
    """
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"An image is uint8, or floating point in [0, 1]; found {image.dtype}.")
    scaled = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    # new_tensor would wait until the device is idle, twice in every step.
    mean, std = (
        torch.tensor(values).view(3, 1, 1).to(image.device, non_blocking=True)
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (scaled - mean) / std
