"""The order of samples and their randomness, determined by (seed, epoch, index) alone.

The order is elastic, as in MosaicML Streaming: a step sees the same global batch on any number of devices.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch.utils.data import DistributedSampler

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Draw:
    """A sample to train on, and the seed of its random transforms."""

    index: int
    seed: int


def draw(seed: int, epoch: int, index: int, repeat: int = 0) -> Draw:
    """Sample `index` with its seed for this epoch of this run, on its `repeat`-th occurrence (counted from 0)."""
    entropy = (seed, epoch, index, repeat) if repeat else (seed, epoch, index)
    return Draw(index, int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


def evenly_spread(items: Sequence[Item], most: int | None) -> list[Item]:
    """At most `most` of the items, in order and evenly spread from first to last; None for all of them."""
    count = len(items) if most is None else min(most, len(items))
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int).tolist()]


# Both samplers subclass DistributedSampler so that Lightning does not replace them with one that pads.


class TrainSampler(DistributedSampler[Draw]):
    """Samples in random order, without the incomplete global batch at the end of the epoch.

    Step k of an epoch sees `order[k * global_batch_size : (k + 1) * global_batch_size]`, whatever `world_size` is.

    Args:
        length: number of samples in an epoch.
        seed: seed of the run; not negative.
        global_batch_size: samples per optimizer step, over all devices and accumulated batches.
        rank, world_size: index of this process and number of processes; `world_size` divides `global_batch_size`.
        order: returns the `length` indices of an epoch, given its generator; by default every sample once.

    Raises:
        ValueError: the epoch is smaller than one global batch.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        global_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        order: Callable[[np.random.Generator], np.ndarray] | None = None,
    ) -> None:
        if global_batch_size % world_size:
            raise ValueError(f"A global batch of {global_batch_size} does not divide among {world_size} processes.")
        if length < global_batch_size:
            raise ValueError(
                f"Training needs at least one global batch (devices × data.batch_size × accumulated batches) of "
                f"{global_batch_size} images, found {length}. Choose a smaller data.batch_size "
                "or trainer.accumulate_grad_batches."
            )
        self.length, self.seed, self.global_batch_size = length, seed, global_batch_size
        self.rank, self.world_size = rank, world_size
        self.order = order or (lambda rng: rng.permutation(length))
        self.epoch = 0
        self._resumed = (0, 0)

    def resume(self, epoch: int, samples: int) -> None:
        """Resume in `epoch` after `samples` samples, counted over all processes; skipped samples are not read."""
        self._resumed = (epoch, samples)

    def __len__(self) -> int:
        return self.length // self.global_batch_size * self.global_batch_size // self.world_size

    def __iter__(self) -> Iterator[Draw]:
        order = self.order(np.random.default_rng((self.seed, self.epoch)))
        start = self._resumed[1] if self.epoch == self._resumed[0] else 0
        seen: Counter[int] = Counter()
        for position, index in enumerate(order[: len(self) * self.world_size].tolist()):
            if position >= start and position % self.world_size == self.rank:
                yield draw(self.seed, self.epoch, index, repeat=seen[index])
            seen[index] += 1


class EvaluationSampler(DistributedSampler[int | None]):
    """This process's share of the samples, in order, without padding or dropping any.

    A process without a share gets a single None, which stands for an empty batch. Lightning skips a process whose
    loader is empty, and the others would then wait for it when they reduce their results.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices: Sequence[int | None] = range(rank, length, world_size) if rank < length else [None]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int | None]:
        return iter(self.indices)
