"""Share of point pairs that a prediction puts in the right order (DA-2K, Yang et al., 2024, arXiv:2406.09414)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric


class PairCounts(NamedTuple):
    """What the accuracies are over."""

    images: int
    pairs: dict[str, int]
    """By scene type."""
    ties: int
    """Pairs with the same prediction at both points, or NaN at one; they count as wrong."""


def pair_margins(nearness: Tensor, nearer: Tensor, farther: Tensor) -> Tensor:
    """(pairs,) how much larger the map is at the nearer points: positive if the order is right, 0 for a tie.

    Args:
        nearness: (h, w), larger is nearer: disparity, or negative depth.
        nearer: (pairs, 2) int64 row and column of the point that is nearer in truth.
        farther: (pairs, 2) int64 row and column of the other.
    """
    return nearness[nearer[:, 0], nearer[:, 1]] - nearness[farther[:, 0], farther[:, 1]]


class PointPairAccuracy(Metric):
    """Share of pairs in the right order, over all pairs and for each scene type.

    >>> metric = PointPairAccuracy(["aerial", "indoor"])
    >>> metric.update(torch.tensor([[0.0, 1.0]]), torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), "indoor")
    >>> metric.update(torch.tensor([[2.0, 2.0]]), torch.tensor([[0, 1]]), torch.tensor([[0, 0]]), "aerial")
    >>> {name: float(value) for name, value in metric.compute().items()}
    {'accuracy': 0.5, 'mean_scene_accuracy': 0.5, 'accuracy_aerial': 0.0, 'accuracy_indoor': 1.0}

    Args:
        scenes: every scene type that updates will use.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right: Tensor
    pairs: Tensor
    ties: Tensor
    images: Tensor

    def __init__(self, scenes: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scenes = list(scenes)
        for name, shape in (("right", len(scenes)), ("pairs", len(scenes)), ("ties", ()), ("images", ())):
            self.add_state(name, default=torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, nearness: Tensor, nearer: Tensor, farther: Tensor, scene: str) -> None:
        """Add the pairs of one image; see `pair_margins`."""
        margins = pair_margins(nearness, nearer, farther)
        index = self.scenes.index(scene)
        self.right[index] += (margins > 0).sum()
        self.pairs[index] += len(margins)
        self.ties += (~(margins.abs() > 0)).sum()
        self.images += 1

    def compute(self) -> dict[str, Tensor]:
        """`accuracy` of all pairs, `mean_scene_accuracy` over scene types, then each type's; NaN without pairs."""
        right, pairs = self.right.cpu().double(), self.pairs.cpu()
        by_scene = right / pairs
        return {
            "accuracy": right.sum() / pairs.sum(),
            "mean_scene_accuracy": by_scene.nanmean(),
            **{f"accuracy_{scene}": value for scene, value in zip(self.scenes, by_scene, strict=True)},
        }

    def counts(self) -> PairCounts:
        """The pair counts behind `compute`, over all processes: a collective call that every process must make."""
        with self.sync_context(should_sync=self._to_sync):
            pairs = dict(zip(self.scenes, self.pairs.tolist(), strict=True))
            return PairCounts(int(self.images), pairs, int(self.ties))
