"""Which sample comes when, and with which randomness: decided by (seed, epoch, index) and by nothing else.

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
    """Sample `index` with the seed that belongs to it in this epoch of this run, the `repeat`-th time it comes."""
    entropy = (seed, epoch, index, repeat) if repeat else (seed, epoch, index)
    return Draw(index, int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))


def evenly_spread(items: Sequence[Item], most: int | None) -> list[Item]:
    """At most `most` of the items in their order, evenly spread from the first to the last; None for all of them."""
    count = len(items) if most is None else min(most, len(items))
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int).tolist()]


# Both samplers are DistributedSamplers by type, so that Lightning does not put a padding one in their place.


class TrainSampler(DistributedSampler[Draw]):
    """Samples in a random order, less the last incomplete global batch of the epoch.

    Step k of an epoch sees `order[k * global_batch_size : (k + 1) * global_batch_size]`, whatever `world_size` is.

    Args:
        length: number of samples in an epoch.
        seed: of the run; not negative.
        global_batch_size: samples per optimizer step, on all devices and accumulated batches together.
        rank, world_size: this process and the number of them; `world_size` divides `global_batch_size`.
        order: the `length` indices of an epoch, from its generator; by default every sample once.

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
                f"{global_batch_size} images, found {length}. Choose a smaller data.batch_size."
            )
        self.length, self.seed, self.global_batch_size = length, seed, global_batch_size
        self.rank, self.world_size = rank, world_size
        self.order = order or (lambda rng: rng.permutation(length))
        self.epoch = 0
        self._resumed = (0, 0)

    def resume(self, epoch: int, samples: int) -> None:
        """Go on in `epoch` after as many samples, of all processes together; nothing before them is read."""
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
    """This process's share of the samples, in order: nothing padded, nothing dropped.

    A process without a share gets one None, which stands for a batch of no images: Lightning passes over a process
    whose loader is empty, and the others then wait for it where they exchange what they found.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices: Sequence[int | None] = range(rank, length, world_size) if rank < length else [None]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int | None]:
        return iter(self.indices)
