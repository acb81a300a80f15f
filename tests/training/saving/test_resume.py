"""A run that stopped anywhere goes on to the very bits of a run that did not."""

import csv
import errno
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from depth_lightning.data import DepthDataModule
from depth_lightning.reporting.loggers import MetricsFile
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import SettingError
from depth_lightning.training.averaging import AveragedWeights
from depth_lightning.training.display.learning_rates import LearningRates
from depth_lightning.training.saving import checkpoint_files
from depth_lightning.training.saving.checkpoint_files import LAST, PREVIOUS, newest_whole, whole_step
from depth_lightning.training.saving.checkpointing import Checkpoints
from depth_lightning.training.saving.signals import EXIT_SAVED, Stopped
from depth_lightning.training.saving.step_seed import StepSeed

SIDE = 14


class Patterns:
    """26 samples to train on, 5 to validate on."""

    def __init__(self, split):
        self.length = {"train": 26, "val": 5}[split]

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        target = image.mean(2).astype(np.float32) / 100 + 0.5
        return DepthSample(image, target, target > 0, DepthKind.METRES, str(index))


def noisy(sample, seed):
    """An augmentation."""
    return sample._replace(target=sample.target + np.random.default_rng(seed).normal(0, 0.1, 1).astype(np.float32))


class Small(lightning.LightningModule):
    """A convolution with dropout, which draws from torch's own generator."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1))
        self.seen = []

    def loss(self, batch):
        return (self.network(batch.image / 255)[:, 0] - batch.target).abs().mean()

    def training_step(self, batch, index):
        self.seen.append((self.current_epoch, tuple(batch.id)))
        loss = self.loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val/abs_rel", self.loss(batch), batch_size=len(batch.id), sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW([{"params": self.parameters(), "name": "all"}], lr=0.01)
        total = self.trainer.estimated_stepping_batches
        schedule = LambdaLR(optimizer, lambda step: 1 - step / (total + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class End(BaseException):
    """The run is killed, as far as one can be within a process."""


class At(Callback):
    """Does something when a moment comes for the n-th time."""

    def __init__(self, moment, count, action):
        self.count, self.action = count, action
        setattr(self, moment, self.come)

    def come(self, *args, **kwargs):
        self.count -= 1
        if not self.count:
            self.action()


def die():
    raise End


def fit(folder, *callbacks, checkpoint=None, workers=0, batch_size=2, checkpoints=None, **trainer):
    module = Small()
    saving = Checkpoints(folder / "checkpoints", **{"every_n_steps": 2, **(checkpoints or {})})
    data = DepthDataModule(Patterns, noisy, lambda sample: sample, batch_size, 2, workers, seed=3)
    trainer = {"max_epochs": 3, "accumulate_grad_batches": 2, "log_every_n_steps": 1, **trainer}
    fitter = lightning.Trainer(
        accelerator="cpu",
        callbacks=[LearningRates(), StepSeed(3), saving, *callbacks],
        logger=MetricsFile(folder, name="", version=""),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **trainer,
    )
    fitter.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return module, saving


def go_on(folder, *callbacks, **options):
    checkpoint = newest_whole(folder / "checkpoints").path
    return fit(folder, *callbacks, checkpoint=checkpoint, **options)


def damage(path):
    """One bit of a weight."""
    data = bytearray(path.read_bytes())
    weight = next(iter(torch.load(path, weights_only=True)["state_dict"].values())).numpy().tobytes()
    data[data.index(weight)] ^= 1
    path.write_bytes(data)


def content(folder, name=LAST):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def leaves(value, place=""):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        yield place, value.tolist() if isinstance(value, torch.Tensor) else value
    else:
        for key, item in items:
            yield from leaves(item, f"{place}/{key}")


def assert_same(folder, expected, names=(LAST, "best.ckpt")):
    for name in names:
        assert dict(leaves(content(folder, name))) == dict(leaves(content(expected, name)))
    assert (folder / "metrics.csv").read_text() == (expected / "metrics.csv").read_text()


VARIANTS = {
    "epochs": {},
    "workers": {"workers": 2},
    "mid-epoch validation": {"val_check_interval": 0.5},
    "every second epoch": {"check_val_every_n_epoch": 2, "max_epochs": 4},
    "steps": {"max_steps": 14, "max_epochs": -1},
    "steps, validation by steps": {
        "max_steps": 14,
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "val_check_interval": 8,
    },
    "no accumulation": {"accumulate_grad_batches": 1, "batch_size": 4},
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    module, _ = fit(folder, **VARIANTS[request.param])
    return folder, VARIANTS[request.param], module


@pytest.mark.parametrize(
    "moment, count",
    [("on_train_batch_end", 7), ("on_train_batch_start", 13), ("on_validation_end", 2)],
)
def test_a_killed_run_goes_on_to_the_same_bits(variant, moment, count, tmp_path):
    expected, options, module = variant
    with pytest.raises(End):
        fit(tmp_path, At(moment, count, die), **options)
    found = newest_whole(tmp_path / "checkpoints").path
    resumed, _ = go_on(tmp_path, **options)
    assert_same(tmp_path, expected)
    assert found is not None
    assert resumed.seen == module.seen[-len(resumed.seen) :]
    assert len(resumed.seen) < len(module.seen)


@pytest.mark.parametrize(
    "number, moment, count",
    [(signal.SIGUSR1, "on_train_batch_end", 7), (signal.SIGTERM, "on_validation_batch_start", 7)],
)
def test_a_signal_saves_and_leaves(variant, number, moment, count, tmp_path):
    expected, options, module = variant
    handlers = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)]
    tell = At(moment, count, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, tell, **options, checkpoints={"every_n_steps": None})
    assert stopped.value.code == EXIT_SAVED == 75
    assert [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)] == handlers
    saved = content(tmp_path)["global_step"]
    resumed, _ = go_on(tmp_path, **options)
    assert_same(tmp_path, expected)
    assert len(resumed.seen) == len(module.seen) - saved * options.get("accumulate_grad_batches", 2)


@pytest.mark.parametrize("moment, count", [("on_train_batch_end", 15), ("on_validation_batch_start", 7)])
def test_a_signal_keeps_the_weights_and_their_average_apart(moment, count, tmp_path):
    tell = At(moment, count, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped):
        fit(tmp_path / "run", AveragedWeights(decay=0.8), tell)
    go_on(tmp_path / "run", AveragedWeights(decay=0.8))
    fit(tmp_path / "expected", AveragedWeights(decay=0.8))
    assert_same(tmp_path / "run", tmp_path / "expected")


def test_the_end_of_a_run_is_saved_with_the_weights_that_were_trained(tmp_path):
    averaged, _ = fit(tmp_path / "averaged", AveragedWeights(decay=0.8))
    trained, _ = fit(tmp_path / "trained")
    saved = content(tmp_path / "averaged")
    average, weights = (dict(leaves(module.state_dict())) for module in (averaged, trained))
    assert average != weights
    assert dict(leaves(saved["state_dict"])) == average
    assert dict(leaves(saved["current_model_state"])) == weights


def test_lightnings_own_average_overwrites_the_weights_that_were_trained(tmp_path):
    """Else `AveragedWeights` could leave `on_train_end` to it."""
    fit(tmp_path, EMAWeightAveraging(decay=0.8))
    saved = content(tmp_path)
    assert dict(leaves(saved["current_model_state"])) == dict(leaves(saved["state_dict"]))


@pytest.mark.parametrize(("average", "kept"), [(AveragedWeights, True), (EMAWeightAveraging, False)])
def test_what_is_validated_after_the_run_is_what_the_network_then_holds(average, kept, tmp_path):
    """Lightning's own puts the last average in its place; else `AveragedWeights` could leave that to it."""
    module, _ = fit(tmp_path, average(decay=0.8))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    data = DepthDataModule(Patterns, noisy, lambda sample: sample, 2, 2, 0, seed=3)
    (scored,) = module.trainer.validate(module, data, verbose=False)
    expected = np.mean([Patterns("val")[index].target for index in range(5)])  # the error of a prediction of 0
    assert (scored["val/abs_rel"] == pytest.approx(expected)) == kept


@pytest.mark.parametrize("counting", [True, False])
def test_rows_are_numbered_by_the_steps_made(counting, tmp_path, monkeypatch):
    """Lightning's own count is one behind; else `count_steps` could go."""
    if not counting:
        monkeypatch.setattr("depth_lightning.training.saving.checkpointing.count_steps", lambda trainer: None)
    with pytest.raises(End):
        fit(tmp_path, At("on_train_batch_end", 7, die))
    go_on(tmp_path)
    steps = [int(row["step"]) for row in csv.DictReader((tmp_path / "metrics.csv").open()) if row["train/loss"]]
    assert (steps == list(range(18))) == counting


def test_a_run_that_is_over_stays_as_it_is(tmp_path):
    fit(tmp_path)
    before = (tmp_path / "metrics.csv").read_text()
    resumed, _ = go_on(tmp_path)
    assert resumed.seen == []
    assert (tmp_path / "metrics.csv").read_text() == before


def test_a_run_that_was_stopped_early_does_not_go_on(tmp_path):
    stopping = {"monitor": "val/abs_rel", "patience": 1, "min_delta": 100.0}
    first, _ = fit(tmp_path, EarlyStopping(**stopping))
    assert first.seen[-1][0] == 1
    resumed, _ = go_on(tmp_path, EarlyStopping(**stopping))
    assert resumed.seen == []


def test_the_same_global_batches_go_on_in_other_shares(tmp_path):
    """Two accumulated batches of two as one of four: float sums differ in order alone."""
    fit(tmp_path / "expected")
    with pytest.raises(End):
        fit(tmp_path / "run", At("on_train_batch_end", 19, die))
    resumed, _ = go_on(tmp_path / "run", accumulate_grad_batches=1, batch_size=4)
    assert content(tmp_path / "run")["global_step"] == content(tmp_path / "expected")["global_step"]
    assert len(resumed.seen) == 18 - 8
    assert len(set(itertools.chain(*(ids for epoch, ids in resumed.seen if epoch == 2)))) == 24


def test_other_global_batches_are_refused(tmp_path):
    with pytest.raises(End):
        fit(tmp_path, At("on_train_batch_end", 7, die))
    with pytest.raises(ValueError, match=r"began with: 4 images = .* found 8 = 1 × 4 × 2"):
        go_on(tmp_path, batch_size=4)


def test_the_best_so_far_comes_along_into_a_new_folder(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    with pytest.raises(End):
        fit(old, At("on_train_batch_end", 15, die), checkpoints={"mode": "max"})
    _, saving = fit(new, checkpoint=old / "checkpoints" / LAST, checkpoints={"mode": "max"}, max_epochs=3)
    _, expected = fit(tmp_path / "expected", checkpoints={"mode": "max"})
    assert saving.best.state_dict() == expected.best.state_dict() and saving.best.step == 6
    assert saving.best_path == new / "checkpoints" / "best.ckpt"
    assert whole_step(saving.best_path) == 6


def test_a_best_that_is_gone_is_said(tmp_path, caplog):
    with pytest.raises(End):
        fit(tmp_path, At("on_train_batch_end", 19, die), checkpoints={"mode": "max"})
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    _, saving = go_on(tmp_path, checkpoints={"mode": "max"})
    assert "is not the best checkpoint so far, that of step 6" in caplog.text
    assert saving.best.step is not None and saving.best.step > 6


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "is torn"),
        (lambda path: damage(path), "is damaged"),
        (lambda path: torch.save({"weights": 1}, path), "is no checkpoint of train.py"),
    ],
)
def test_a_spoiled_file_is_passed_over_for_the_one_before(spoil, reason, tmp_path):
    with pytest.raises(End):
        fit(tmp_path, At("on_train_batch_end", 9, die))
    folder = tmp_path / "checkpoints"
    spoil(folder / LAST)
    found = newest_whole(folder)
    assert found.path == folder / PREVIOUS
    assert whole_step(found.path) == 2
    (said,) = found.passed_over
    assert str(folder / LAST) in said
    with pytest.raises(ValueError, match=reason):
        whole_step(folder / LAST)
    fit(tmp_path / "expected")
    go_on(tmp_path)
    assert_same(tmp_path, tmp_path / "expected")


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path):
    """A limit on the size of files fails in the middle of one, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    reason = r"new\.ckpt could not be written\. File too large: it takes \d+\.\d kB\. .* of step 4, is intact\. "
    try:
        with pytest.raises(OSError, match=reason + ".* checkpoint=auto resumes") as error:
            fit(tmp_path, At("on_train_batch_end", 9, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.errno == errno.EFBIG
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [LAST, PREVIOUS]
    fit(tmp_path / "expected")
    go_on(tmp_path)
    assert_same(tmp_path, tmp_path / "expected")


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """A disk that waits for three more batches gets what was to be saved before them."""
    for folder in (tmp_path / "fast", tmp_path / "slow"):
        arrived, waited = threading.Event(), []
        if folder.name == "slow":

            def slow(*args, write=checkpoint_files.write_bytes, arrived=arrived, waited=waited, **options):
                waited.append(arrived.wait(30))
                write(*args, **options)

            monkeypatch.setattr(checkpoint_files, "write_bytes", slow)
        with pytest.raises(End):
            fit(folder, At("on_train_batch_end", 7, arrived.set), At("on_train_batch_end", 8, die))
        assert content(folder)["global_step"] == 2
    assert waited == [True]
    assert_same(tmp_path / "slow", tmp_path / "fast", [LAST])


def test_a_disk_that_fills_up_stops_the_run_at_once(tmp_path, monkeypatch):
    """Not only when the next checkpoint is due."""

    def full(path, *args, **options):
        raise OSError(errno.ENOSPC, f"{path} could not be written.")

    monkeypatch.setattr(checkpoint_files, "write_bytes", full)
    with pytest.raises(OSError, match=r"new\.ckpt could not be written\. There is no earlier checkpoint\. Once "):
        fit(tmp_path, At("on_train_batch_end", 7, lambda: time.sleep(0.2)), At("on_train_batch_end", 8, die))


def test_saving_by_the_clock(tmp_path):
    with pytest.raises(End):
        fit(tmp_path, At("on_train_batch_end", 9, die), checkpoints={"every_n_steps": None, "every_n_minutes": 1e-9})
    assert content(tmp_path)["global_step"] == 4


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("every_n_minutes", 0, "a number above 0"),
        ("every_n_minutes", float("nan"), "a number above 0"),
        ("every_n_steps", 2.5, "a whole number, 1 or above"),
        ("mode", "Min", "min or max"),
        ("folder", "", "a path"),
    ],
)
def test_arguments_are_checked(name, value, expected, tmp_path):
    with pytest.raises(SettingError, match=rf"^{name} is {expected}, found {value!r}\."):
        Checkpoints(**{"folder": tmp_path, name: value})


def test_a_monitor_that_is_not_validated_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"monitor=val/typo is not a validation metric. Choose one of: val/abs_rel"):
        fit(tmp_path, checkpoints={"monitor": "val/typo"})


def test_workers_outlive_the_signal(tmp_path):
    """A cluster signals every process of a job: the workers must not take the run down before it has saved."""

    def signal_all():
        workers = multiprocessing.active_children()
        assert len(workers) >= 2
        subprocess.run(["kill", *(str(process) for process in (*(w.pid for w in workers), os.getpid()))], check=True)

    with pytest.raises(Stopped):
        fit(tmp_path, At("on_train_batch_end", 3, signal_all), workers=2)
    fit(tmp_path / "expected")
    go_on(tmp_path)
    assert_same(tmp_path, tmp_path / "expected")


def test_metrics_file_rewrites_only_what_comes_again(tmp_path):
    first = MetricsFile(tmp_path, name="", version="")
    for step in range(3):
        first.log_metrics({"a": step}, step)
        first.save()
    first.log_metrics({"b": 1.5}, 3)
    first.save()
    assert first.rows == 4
    second = MetricsFile(tmp_path, name="", version="")
    second.keep(2)
    second.log_metrics({"c": 7}, 2)
    second.save()
    lines = (tmp_path / "metrics.csv").read_text().split()
    assert lines == ["a,b,c,step", "0,,,0", "1,,,1", ",,7,2"]
    assert [path.name for path in Path(tmp_path).iterdir()] == ["metrics.csv"]


def test_metrics_file_takes_several_rows_at_once(tmp_path):
    """As of Lightning's LearningRateMonitor, which logs beside the step."""
    file = MetricsFile(tmp_path, name="", version="")
    for step, name in enumerate("aab"):
        file.log_metrics({name: step}, step)
        file.save()
    for step in (3, 4):
        file.log_metrics({"a": step}, step)
    file.save()
    lines = (tmp_path / "metrics.csv").read_text().split()
    assert lines == ["a,b,step", "0,,0", "1,,1", ",2,2", "3,,3", "4,,4"]
