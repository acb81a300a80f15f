"""Batches for training and validation, identical for the same seed on any number of workers."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from depth_lightning.data.bad_samples import BadSampleList, Samples, peers_of
from depth_lightning.data.mixture import Mixture
from depth_lightning.data.sampling import Draw, EvaluationSampler, TrainSampler, draw
from depth_lightning.data.shards import DepthShards
from depth_lightning.data.workers import Loader
from depth_lightning.sample import DepthBatch, DepthDataset, DepthSample, collate
from depth_lightning.settings import whole_number


class DepthDataModule(LightningDataModule):
    """Loaders for two splits of a data set: for training, and for validation or evaluation.

    Training drops the last incomplete global batch (devices × `batch_size` × accumulated batches); validation drops
    and pads nothing.

    Args:
        dataset: called with split="train" or `eval_split`.
        train_transform: (sample, seed) → a sample of a size common to all.
        eval_transform: sample → sample; its target keeps its size, so sizes may differ and `eval_batch_size` is 1.
        batch_size: per device.
        num_workers: processes that read and transform, per loader and device; 0 for none.
        seed: determines order, crops and augmentations, together with epoch and index.
        pin_memory: faster copies to a GPU; no effect without one.
        colour: (images uint8, seeds) → float images, for training batches once they are on the device.
        bad_samples: a CSV file in which to list broken samples, which are skipped, see `Samples`; None to stop at the
            first one. The first sample is then read when a data set is opened, so that general errors show early.
        eval_split: the split in place of the validation split.

    Raises:
        SettingError: an argument is out of range.
    """

    def __init__(
        self,
        dataset: Callable[..., DepthDataset],
        train_transform: Callable[[DepthSample, int], DepthSample],
        eval_transform: Callable[[DepthSample], DepthSample],
        batch_size: int,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        seed: int = 0,
        pin_memory: bool = True,
        colour: Callable[[Tensor, Sequence[int]], Tensor] | None = None,
        bad_samples: Path | None = None,
        eval_split: str = "val",
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.train_transform, self.eval_transform = train_transform, eval_transform
        self.batch_size = whole_number("batch_size", batch_size)
        self.eval_batch_size = whole_number("eval_batch_size", eval_batch_size)
        self.num_workers = whole_number("num_workers", num_workers, least=0)
        self.seed, self.pin_memory = seed, pin_memory
        self.colour = colour
        self.bad_samples, self.eval_split = bad_samples, eval_split

    def setup(self, stage: str) -> None:
        """Open the splits that `stage` needs: both for "fit", the validation split otherwise; each only once.

        Raises:
            OSError, ValueError: a split or its first sample is broken.
        """
        _ = (self.train_data, self.val_data) if stage == "fit" else self.val_data

    @cached_property
    def train_data(self) -> "_TrainData":
        """The training split, opened on first access."""
        return _TrainData(self._samples("train"), self.train_transform, self.seed)

    @cached_property
    def val_data(self) -> "_EvaluationData":
        """The validation split, or `eval_split`, opened on first access."""
        return _EvaluationData(self._samples(self.eval_split), self.eval_transform)

    @property
    def val_parts(self) -> tuple[str, ...]:
        """The names of a mixture's parts in the validation split; none of another data set."""
        source = self.val_data.dataset.source
        return tuple(source.parts) if isinstance(source, Mixture) else ()

    def _samples(self, split: str) -> Samples:
        source = self.dataset(split=split)
        if self.bad_samples is not None:
            return Samples(source, BadSampleList(self.bad_samples, split))
        samples, first = Samples(source), 0
        while first < len(source):
            samples[first]
            first = peers_of(source, first).stop
        return samples

    @property
    def global_batch_size(self) -> int:
        """Samples per optimizer step, over all devices and accumulated batches."""
        accumulated = self.trainer.accumulate_grad_batches if self.trainer else 1
        return self.batch_size * self._process()[1] * accumulated

    def train_dataloader(self) -> DataLoader[DepthSample]:
        """Batches in the order of `TrainSampler`, whose epoch Lightning sets."""
        rank, world_size = self._process()
        source = self.train_data.dataset.source
        ordered = source if isinstance(source, Mixture | DepthShards) else None
        sampler = TrainSampler(
            ordered.samples_per_epoch if ordered else len(self.train_data),
            self.seed,
            self.global_batch_size,
            rank,
            world_size,
            order=ordered.epoch_order if ordered else None,
        )
        return self._loader(self.train_data, sampler, self.batch_size)

    def val_dataloader(self) -> DataLoader[DepthSample]:
        """Batches in the order of `EvaluationSampler`."""
        sampler = EvaluationSampler(len(self.val_data), *self._process())
        return self._loader(self.val_data, sampler, self.eval_batch_size)

    def on_after_batch_transfer(self, batch: DepthBatch, dataloader_idx: int) -> DepthBatch:
        """Change the colours of training images on the device, where it costs no worker time."""
        if self.colour is None or self.trainer is None or not self.trainer.training:
            return batch
        return batch._replace(image=self.colour(batch.image, batch.seed))

    def _process(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, data: Dataset[DepthSample], sampler: Sampler[Any], batch_size: int) -> DataLoader[DepthSample]:
        if self.num_workers:
            # Otherwise each worker would start a thread per core. Set here and not in the workers: OpenCV's thread
            # pool does not survive a fork, and changing it there would deadlock.
            cv2.setNumThreads(1)
        return _Loader(
            data,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=self.pin_memory and torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )


class _Loader(Loader[DepthSample]):
    """A loader that reads nothing before its first batch is requested, and measures how long training waited.

    Lightning creates the iterator before it knows the epoch and, in a resumed run, the position within it.
    """

    waited_s = 0.0
    """Seconds that training waited, over all epochs."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        asked = time.monotonic()
        for batch in super().__iter__():
            self.waited_s += time.monotonic() - asked
            yield batch
            asked = time.monotonic()


class _TrainData(Dataset[DepthSample]):
    def __init__(self, dataset: Samples, transform: Callable[[DepthSample, int], DepthSample], seed: int) -> None:
        self.dataset, self.transform, self.seed = dataset, transform, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Draw | int) -> DepthSample:
        # Lightning's overfit_batches replaces our sampler with one of plain indices.
        drawn = item if isinstance(item, Draw) else draw(self.seed, 0, item)
        return self.transform(self.dataset.draw(drawn.index, drawn.seed), drawn.seed)


class _EvaluationData(Dataset[DepthSample]):
    def __init__(self, dataset: Samples, transform: Callable[[DepthSample], DepthSample]) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> DepthSample:
        return self.dataset.transformed(index, self.transform)

    def __getitems__(self, indices: Sequence[int | None]) -> list[DepthSample]:
        """The loader's hook for a batch; None stands for a process without a share, see `EvaluationSampler`."""
        return [self[index] for index in indices if index is not None]
