"""Several data sets in one run, drawn by weight; every sample keeps its kind of depth."""

from collections.abc import Mapping

import numpy as np

from depth_lightning.data.bad_samples import path_of
from depth_lightning.sample import DepthDataset, DepthSample
from depth_lightning.settings import SettingError, boolean, number, optional, whole_number


class Mixture:
    """Several data sets concatenated into one.

    Args:
        parts: the data sets by name; the name is prefixed to every id and scene.
        weights: how often a part is drawn in training, relative to the others; the default is 1, and 0 leaves a
            part out.
        samples_per_epoch: draws in an epoch; by default as many as there are samples.
        every_batch: spread every part evenly over the epoch, so that each batch holds the parts in the ratio of their
            weights, to within one image of two parts. Otherwise only an epoch does.

    Raises:
        SettingError: there is no part, a weight is negative or names no part, or all weights are 0.
    """

    def __init__(
        self,
        parts: Mapping[str, DepthDataset],
        weights: Mapping[str, float] | None = None,
        samples_per_epoch: int | None = None,
        every_batch: bool = False,
    ) -> None:
        weights = dict(weights or {})
        for name, weight in weights.items():
            number(f"weights.{name}", weight, least=0)
        samples_per_epoch = optional("samples_per_epoch", samples_per_epoch, whole_number)
        if unknown := set(weights) - set(parts):
            names = ", ".join(parts) or "there are none"
            raise SettingError("weights", f"names {', '.join(sorted(unknown))}, which is none of the parts ({names}).")
        shares = np.array([weights.get(name, 1.0) for name in parts], float)
        if not shares.any():
            given = ", ".join(f"{name}: {share:g}" for name, share in zip(parts, shares, strict=True)) or "none"
            raise SettingError("weights", f"needs a part that counts more than 0, found {given}.")
        self.every_batch = boolean("every_batch", every_batch)
        self.parts = dict(parts)
        self.shares = shares / shares.sum()
        self._ends = np.cumsum([len(part) for part in parts.values()])
        self.samples_per_epoch = samples_per_epoch or len(self)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> DepthSample:
        """The sample; its id and scene (if known) are prefixed with its part's name."""
        name, part, start = self._part(index)
        sample = part[index - start]
        return sample._replace(id=f"{name}/{sample.id}", scene=sample.scene and f"{name}/{sample.scene}")

    def path(self, index: int) -> str:
        """Path of sample `index`."""
        _, part, start = self._part(index)
        return path_of(part, index - start)

    def peers(self, index: int) -> range:
        """The indices of the part that sample `index` belongs to."""
        _, part, start = self._part(index)
        return range(start, start + len(part))

    def _part(self, index: int) -> tuple[str, DepthDataset, int]:
        """Name and data set of a sample's part, and the index of its first sample."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        name, part = list(self.parts.items())[number]
        return name, part, int(self._ends[number]) - len(part)

    def ranges(self) -> dict[str, range]:
        """Part → the indices of its samples."""
        starts = (int(end) - len(part) for end, part in zip(self._ends, self.parts.values(), strict=True))
        return {
            name: range(start, start + len(self.parts[name])) for name, start in zip(self.parts, starts, strict=True)
        }

    def epoch_order(self, rng: np.random.Generator) -> np.ndarray:
        """The indices of one epoch, shuffled: every part gets its share to within one draw.

        A part drawn more often than it has samples is used up completely before any sample repeats.
        """
        exact = self.shares * self.samples_per_epoch
        counts = np.floor(exact).astype(int)
        counts[np.argsort(counts - exact, kind="stable")[: self.samples_per_epoch - counts.sum()]] += 1
        drawn = []
        for end, part, count in zip(self._ends, self.parts.values(), counts, strict=True):
            rounds = [rng.permutation(len(part)) for _ in range(-(-int(count) // len(part)))]
            if rounds:
                drawn.append(int(end) - len(part) + np.concatenate(rounds)[:count])
        joined = np.concatenate(drawn)
        order: np.ndarray = rng.permutation(joined)
        if self.every_batch:
            # Each part at equal distances, from an offset of its own.
            places = [(np.arange(len(part)) + rng.random()) / len(part) for part in drawn]
            order = joined[np.argsort(np.concatenate(places), kind="stable")]
        return order
