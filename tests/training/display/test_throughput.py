"""What is logged under time/ and of the gradient, against sleeps of known length and against autograd."""

import csv
import time

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from depth_lightning.data import DepthDataModule
from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.loggers import MetricsFile
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.training import DepthModule, Objective
from depth_lightning.training.display.learning_rates import LearningRates
from depth_lightning.training.display.progress import TerminalProgress
from depth_lightning.training.display.throughput import Throughput
from depth_lightning.training.health.watch import Watch


class Grey:
    def __init__(self, read_s, split):
        self.read_s = read_s if split == "train" else 0

    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(self.read_s)
        depth = np.full((14, 14), 1 + index / 24, np.float32)
        return DepthSample(np.full((14, 14, 3), index, np.uint8), depth, depth > 0, DepthKind.METRES, str(index))


class Slow(lightning.LightningModule):
    def __init__(self, step_s, validation_s=0.0):
        super().__init__()
        self.step_s, self.validation_s = step_s, validation_s
        torch.manual_seed(0)
        self.network = torch.nn.Conv2d(3, 1, 3)

    stepping = False

    def training_step(self, batch, index):
        self.stepping = True
        time.sleep(self.step_s)
        loss = (self.network(batch.image.float()) - 1).abs().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, index):
        time.sleep(self.validation_s)

    def configure_optimizers(self):
        return torch.optim.SGD([{"params": self.parameters(), "name": "all"}], lr=1e-5)


def fit(folder, module, *callbacks, read_s=0.0, **trainer):
    data = DepthDataModule(
        lambda split: Grey(read_s, split), lambda sample, seed: sample, lambda sample: sample, 2, 24, seed=0
    )
    trainer = {
        "max_epochs": 1,
        "log_every_n_steps": 3,
        "gradient_clip_val": 1e-3,
        "enable_progress_bar": False,
        **trainer,
    }
    lightning.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=MetricsFile(folder, name="", version=""),
        default_root_dir=folder,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        **trainer,
    ).fit(module, datamodule=data)
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(rows, name):
    return [float(row[name]) for row in rows if row.get(name)]


@pytest.mark.timed
@pytest.mark.parametrize(("read_s", "step_s", "low", "high"), [(0.02, 0.01, 0.5, 0.85), (0.0, 0.05, 0.0, 0.2)])
def test_share_of_time_waiting_for_data(tmp_path, read_s, step_s, low, high):
    """Without workers, reading two samples of 20 ms is the waiting: 40 of 50 ms."""
    rows = fit(tmp_path, Slow(step_s), Throughput(), read_s=read_s)
    shares = column(rows, "time/data_wait_share")
    assert len(shares) == 4  # 12 steps, every third is logged
    assert low < np.median(shares[1:]) < high


@pytest.mark.timed
def test_images_per_second_leave_validation_out(tmp_path):
    rows = fit(tmp_path, Slow(0.05, validation_s=2.0), Throughput(), val_check_interval=4, accumulate_grad_batches=2)
    speeds = column(rows, "time/images_per_s")
    assert len(speeds) == 2  # six steps of two batches
    assert 20 < min(speeds) <= max(speeds) <= 40  # 2 images in a little more than 50 ms
    assert "time/gpu_memory_gib" not in rows[0]


class Real(DepthModule):
    """What runs train; less Adam, which reads its count of steps where it is not fused."""

    stepping = False

    def __init__(self):
        super().__init__(
            DepthAnythingV2("tiny"),
            objective=Objective(SiLogLoss(), SiLogLoss(), AffineInvariantLoss(), "metric", 10.0),
        )

    def training_step(self, batch, index):
        self.stepping = True
        return super().training_step(batch, index)

    def configure_optimizers(self):
        return torch.optim.SGD([{"params": self.parameters(), "name": "all"}], lr=1e-5)


@pytest.mark.parametrize("kind", [lambda: Slow(0), Real])
def test_numbers_are_read_from_the_device_when_lightning_logs_and_not_before(kind, tmp_path, monkeypatch):
    """On a GPU every one of these calls would wait for it."""
    read_at = []
    module = kind()

    def watched(original):
        def read(tensor, *arguments, **options):
            if module._trainer is not None and module.trainer.training and module.stepping:
                read_at.append(module.trainer.global_step)
            return original(tensor, *arguments, **options)

        return read

    for name in ("item", "tolist", "cpu", "__float__", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, watched(getattr(torch.Tensor, name)))
    bar = TerminalProgress()
    fit(tmp_path, module, LearningRates(), Throughput(), bar, enable_progress_bar=True, gradient_clip_val=None)
    assert set(read_at) == {3, 6, 9, 12}


class OwnNorm(Callback):
    def __init__(self):
        self.found = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.found.append(float(torch.cat([p.grad.flatten() for p in module.parameters()]).square().sum().sqrt()))


@pytest.mark.parametrize("accumulated", [1, 2])
def test_gradient_norm_is_the_steps_own_before_clipping(tmp_path, accumulated):
    own = OwnNorm()
    options = {"log_every_n_steps": 1, "accumulate_grad_batches": accumulated}
    rows = fit(tmp_path, Slow(0), Watch(tmp_path), own, **options)
    assert column(rows, "train/gradient_norm") == pytest.approx(own.found, rel=1e-5)
    assert len(own.found) == 12 // accumulated and min(own.found) > 1e-3
