"""The interface of an encoder: a vision transformer of which the head reads four blocks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Maps an image to the tokens of the tapped blocks. `models.encoders` makes one by name."""

    patch: int
    """Side of a patch in pixels; an image's sides are multiples of it."""
    prefix_tokens: int
    """How many of the tokens that `forward` returns precede those of the patches."""
    grid: tuple[int, int]
    """Rows and columns of the position table, in patches; with rotary positions those of the usual image."""
    width: int
    """Channels of a token."""
    taps: Sequence[int]
    """The four blocks, counted from 0, whose tokens the head reads."""
    blocks: nn.ModuleList | nn.Sequential
    norm: nn.Module
    recompute_blocks: bool
    """In training, keep only each block's input and recompute the rest in the backward pass."""

    @abstractmethod
    def forward(self, image: Tensor) -> list[Tensor]:
        """Tokens of every tapped block, normalised: (b, prefix_tokens + rows·columns, width) each.

        `image` is (b, 3, patch·rows, patch·columns), ImageNet-normalised.
        """

    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters by layer, as in timm: what makes the tokens, then one block each, the norm with the last."""
        layers = [list(block.parameters()) for block in self.blocks]
        layers[-1] += self.norm.parameters()
        above = {parameter for layer in layers for parameter in layer}
        return [[parameter for parameter in self.parameters() if parameter not in above], *layers]
