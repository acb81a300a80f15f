"""The published sizes of Depth Anything V2 (Yang et al., 2024, arXiv:2406.09414), and a tiny one for CPUs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSize:
    """An encoder and its matching head."""

    width: int
    """Channels of a token."""
    depth: int
    """Number of transformer blocks."""
    heads: int
    taps: tuple[int, int, int, int]
    """The blocks, counted from 0, whose tokens the head reads."""
    features: int
    """Channels of the head's fusion blocks."""
    out_channels: tuple[int, int, int, int]
    """Channels of the tapped tokens after the head's projections."""
    swiglu: bool = False
    grid: tuple[int, int] = (37, 37)
    """Rows and columns of the position table, in patches."""


SIZES = {
    "vits": ModelSize(384, 12, 6, (2, 5, 8, 11), 64, (48, 96, 192, 384)),
    "vitb": ModelSize(768, 12, 12, (2, 5, 8, 11), 128, (96, 192, 384, 768)),
    "vitl": ModelSize(1024, 24, 16, (4, 11, 17, 23), 256, (256, 512, 1024, 1024)),
    "vitg": ModelSize(1536, 40, 24, (9, 19, 29, 39), 384, (1536, 1536, 1536, 1536), swiglu=True),
    # Learns from scratch at 84×112 in minutes. Its table has that size: a 37×37 one would be sampled too sparsely.
    "tiny": ModelSize(192, 8, 3, (1, 3, 5, 7), 32, (24, 48, 96, 192), grid=(6, 8)),
}


def taps_of(depth: int) -> tuple[int, ...]:
    """Four of `depth` blocks: those of the published encoder of this depth, or else the last of each quarter."""
    published = (size.taps for size in SIZES.values() if size.depth == depth)
    return next(published, tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)))


def size_like(width: int) -> ModelSize:
    """The published size with the most similar width, whose head suits an encoder of this width."""
    return min(SIZES.values(), key=lambda size: abs(size.width - width))
