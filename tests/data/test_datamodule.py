from functools import partial

import cv2
import h5py
import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from depth_lightning.data import DepthDataModule, NYUDepthV2
from depth_lightning.data.transforms import EvaluationTransform, TrainTransform
from depth_lightning.sample import DepthBatch, DepthKind


class Recorder(LightningModule):
    """Keeps the batches it is given; learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_batches: list[tuple[int, DepthBatch]] = []
        self.val_ids: list[str] = []

    def training_step(self, batch):
        self.train_batches.append((self.current_epoch, batch))
        return self.weight * 0

    def validation_step(self, batch):
        self.val_ids.extend(batch.id)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Seven training and three validation frames of 40×60."""
    folder = tmp_path_factory.mktemp("nyu")
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 3)):
        (folder / split / "room").mkdir(parents=True)
        for number in range(count):
            with h5py.File(folder / split / "room" / f"{number}.h5", "w") as file:
                file["rgb"] = rng.integers(0, 256, (3, 40, 60), np.uint8)
                file["depth"] = rng.uniform(0.5, 9, (40, 60)).astype(np.float32)
    return folder


def datamodule(root, **options):
    return DepthDataModule(
        partial(NYUDepthV2, root),
        TrainTransform(28, (28, 28)),
        EvaluationTransform(28),
        batch_size=2,
        **options,
    )


def fit(root, epochs=2, trainer=None, **options):
    recorder = Recorder()
    Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **(trainer or {}),
    ).fit(recorder, datamodule(root, **options))
    return recorder


def equal(a, b):
    return len(a) == len(b) and all(
        epoch == other_epoch
        and list(batch.id) == list(other.id)
        and torch.equal(batch.image, other.image)
        and torch.equal(batch.target, other.target)
        and torch.equal(batch.mask, other.mask)
        for (epoch, batch), (other_epoch, other) in zip(a, b, strict=True)
    )


def test_workers_change_nothing_and_seeds_and_epochs_do(root):
    expected = fit(root, seed=3).train_batches
    assert [epoch for epoch, _ in expected] == [0, 0, 0, 1, 1, 1]
    assert equal(fit(root, seed=3).train_batches, expected)
    for num_workers in (1, 2):
        assert equal(fit(root, seed=3, num_workers=num_workers).train_batches, expected)
    first = {name: image for _, batch in expected[:3] for name, image in zip(batch.id, batch.image, strict=True)}
    second = {name: image for _, batch in expected[3:] for name, image in zip(batch.id, batch.image, strict=True)}
    assert list(first) != list(second)
    assert not any(torch.equal(first[name], second[name]) for name in first.keys() & second.keys())
    assert not equal(fit(root, seed=4).train_batches, expected)


def test_batches(root):
    recorder = fit(root, epochs=1)
    _, batch = recorder.train_batches[0]
    assert isinstance(batch, DepthBatch)
    assert (batch.image.dtype, tuple(batch.image.shape)) == (torch.uint8, (2, 3, 28, 28))
    assert (batch.target.dtype, tuple(batch.target.shape)) == (torch.float32, (2, 28, 28))
    assert torch.equal(batch.mask, batch.target > 0)
    assert list(batch.kind) == [DepthKind.METRES] * 2
    assert list(batch.scene) == ["room", "room"]
    assert recorder.val_ids == [f"val/room/{number}.h5" for number in range(3)]
    data = datamodule(root)
    data.setup("validate")
    evaluated = next(iter(data.val_dataloader()))
    assert (evaluated.image.dtype, tuple(evaluated.image.shape)) == (torch.float32, (1, 3, 28, 42))
    assert tuple(evaluated.target.shape) == (1, 40, 60)


def test_colours_are_changed_on_the_device_and_in_training_alone(root):
    called = []

    def colour(image, seeds):
        called.append((image.dtype, tuple(seeds)))
        return image / 255

    plain, coloured = fit(root, epochs=2), fit(root, epochs=2, colour=colour)
    for (_, before), (_, after) in zip(plain.train_batches, coloured.train_batches, strict=True):
        torch.testing.assert_close(after.image, before.image / 255)
    assert [dtype for dtype, _ in called] == [torch.uint8] * 6  # of training; validation is in float
    assert len({seed for _, seeds in called for seed in seeds}) == 12


def test_accumulated_batches_are_one_global_batch(root):
    """Two accumulated batches of two are the one batch of four that a larger device would take."""
    small = fit(root, trainer={"accumulate_grad_batches": 2}, epochs=3).train_batches
    assert len(small) == 6
    data = datamodule(root)
    data.batch_size = 4
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        (large,) = list(loader)
        parts = [batch for at, batch in small if at == epoch]
        assert list(large.id) == [name for part in parts for name in part.id]
        assert torch.equal(large.image, torch.cat([part.image for part in parts]))


def test_overfitting_repeats_its_batches(root):
    (_, first), (_, second) = fit(root, trainer={"overfit_batches": 1}).train_batches
    assert torch.equal(first.image, second.image)


def test_shares_follow_the_trainer(root):
    class TwoProcesses:
        world_size, accumulate_grad_batches = 2, 1

        def __init__(self, rank):
            self.global_rank = rank

    trained, validated = [], []
    for rank in range(2):
        data = datamodule(root)
        data.trainer = TwoProcesses(rank)  # type: ignore[assignment]
        data.setup("fit")
        trained.append([name for batch in data.train_dataloader() for name in batch.id])
        validated.append([name for batch in data.val_dataloader() for name in batch.id])
    assert [len(names) for names in trained] == [2, 2]
    assert len(set(trained[0] + trained[1])) == 4
    assert [len(names) for names in validated] == [2, 1]
    assert len(set(validated[0] + validated[1])) == 3


def test_a_broken_file_is_named_from_a_worker(root, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    for number in range(2):
        (tmp_path / "train" / f"{number}.h5").write_bytes(b"")
        (tmp_path / "val" / f"{number}.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train/\d\.h5: expected an HDF5 file"):
        fit(tmp_path, num_workers=1)


def test_workers_start_after_opencv_has_used_its_threads(root):
    class Threads:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return NYUDepthV2(root, "val")[index]._replace(scene=str(cv2.getNumThreads()))

    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        cv2.resize(np.zeros((1000, 1000, 3), np.uint8), (2000, 2000), interpolation=cv2.INTER_CUBIC)
        data = DepthDataModule(
            lambda split: Threads(), TrainTransform(28, None), EvaluationTransform(28), batch_size=1, num_workers=1
        )
        data.setup("validate")
        loader = data.val_dataloader()
        loader.timeout = 20
        assert [batch.scene[0] for batch in loader] == ["1", "1"]
    finally:
        cv2.setNumThreads(threads)
