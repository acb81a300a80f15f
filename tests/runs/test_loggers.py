"""What a run logs is read back from the loggers' own files."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from depth_lightning.commands.train import train
from depth_lightning.reporting.loggers import wandb_logger
from depth_lightning.training import DepthModule

ROOT = Path(__file__).resolve().parents[2]

SCALARS = {
    *("train/loss", "train/gradient_norm", "val/abs_rel", "lr/encoder", "lr/head"),
    *("time/images_per_s", "time/data_wait_share"),
}


@pytest.fixture
def one_epoch(small):
    return [*small, "trainer.max_epochs=1"]


def _wandb_records(folder):
    """The records of an offline run: protobuf messages in a log framed like LevelDB's, in blocks of 32 KiB."""
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        yield from _records_of(path.read_bytes())


def _records_of(data):
    from wandb.proto import wandb_internal_pb2

    assert data[:4] == b":W&B"
    position, message = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # what is left of a block is too short for a header
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        message += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # the whole message, or its last piece
            yield wandb_internal_pb2.Record.FromString(message)
            message = b""


def test_wandb_offline_holds_config_metrics_and_panels(one_epoch, compose_config, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(compose_config("train", [*one_epoch, "logger=wandb"], tmp_path))
    import wandb

    wandb.teardown()  # finishes the run and waits for the process that writes its file
    config, history, artifacts = {}, {}, []
    for record in _wandb_records(tmp_path):
        for item in record.run.config.update:
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        for item in record.config.update:
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        artifacts += [entry.path for entry in record.artifact.manifest.contents]
        for item in record.history.item:
            history[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    assert config["model"]["encoder"] == "tiny"
    assert 0 < history["val/abs_rel"] < 10
    assert {*SCALARS, "val/delta1"} <= set(history)
    for name in ("panels", "depth_histogram"):
        assert history[f"val/{name}._type"].startswith("image")
        (picture,) = tmp_path.glob(f"wandb/offline-run-*/files/media/images/val/{name}*.png")
        assert picture.stat().st_size > 1000
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/val/worst*.table.json")
    content = json.loads(table.read_text())
    assert [content["columns"][at] for at in (0, 2, -1)] == ["id", "abs_rel", "panel"]
    assert [row[2] for row in content["data"]] == sorted((row[2] for row in content["data"]), reverse=True)
    assert sum(path.endswith(".png") for path in artifacts) == len(content["data"]) == 5


@pytest.fixture
def wandb_offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")


def _stopped_in_epoch(number, monkeypatch):
    step = DepthModule.training_step

    def stopped(module, *arguments):
        if module.current_epoch == number:
            raise ValueError("stopped")
        return step(module, *arguments)

    monkeypatch.setattr(DepthModule, "training_step", stopped)


def _runs(folder):
    return [record.run for record in _wandb_records(folder) if record.WhichOneof("record_type") == "run"]


def test_every_training_of_a_process_is_a_wandb_run(one_epoch, compose_config, tmp_path, wandb_offline, monkeypatch):
    for name in "ab":
        train(compose_config("train", [*one_epoch, "self_check=false", "logger=wandb"], tmp_path / name))
    import wandb

    assert wandb.run is None
    ids = [{run.run_id for run in _runs(tmp_path / name)} for name in "ab"]
    assert ids[0] != ids[1] and all(len(each) == 1 for each in ids)
    for name in "ab":
        steps = [record.history for record in _wandb_records(tmp_path / name) if record.history.item]
        assert len(steps) > 3


def test_a_resumed_training_continues_its_wandb_run(small, compose_config, tmp_path, wandb_offline, monkeypatch):
    typed = [*small, "self_check=false", "logger=wandb", "checkpoint=auto"]
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="stopped"):
        _stopped_in_epoch(1, patched)
        train(compose_config("train", typed, tmp_path))
    train(compose_config("train", typed, tmp_path))
    runs = _runs(tmp_path)
    assert len(runs) >= 2
    assert {run.run_id for run in runs} == {(tmp_path / "wandb_id.txt").read_text().strip()}
    epochs = [json.loads(item.value_json) for record in _wandb_records(tmp_path) for item in record.history.item
              if item.key == "val/abs_rel" or "val/abs_rel" in item.nested_key]  # fmt: skip
    assert len(epochs) == 2


def test_a_typed_id_is_taken(tmp_path):
    logger = wandb_logger(tmp_path, offline=True, id="mine", mode="disabled")
    assert logger.experiment is not None and logger.version is not None
    assert not (tmp_path / "wandb_id.txt").exists()


def test_a_resumed_training_logs_no_step_twice_into_tensorboard(small, compose_config, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    typed = [*small, "self_check=false", "logger=tensorboard", "checkpoint=auto", "callbacks.panels.every_n_epochs=1"]
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="stopped"):
        step = DepthModule.training_step

        def stopped(module, *arguments):
            if module.global_step == 5:
                raise ValueError("stopped")
            return step(module, *arguments)

        patched.setattr(DepthModule, "training_step", stopped)
        train(compose_config("train", typed, tmp_path))  # step 3 is saved, and step 4 logged
    train(compose_config("train", typed, tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted({event.step for event in events.Scalars("train/loss")}) == list(range(6))
    assert [event.step for event in events.Scalars("train/loss")].count(4) == 1
    assert [event.step for event in events.Images("val/panels")] == [3, 6]


@pytest.mark.slow
def test_a_sweep_is_a_group_of_wandb_runs(small, tmp_path):
    typed = [*small, "self_check=false", "report=false", "trainer.max_epochs=1", "trainer=cpu", "logger=wandb"]
    result = subprocess.run(
        [sys.executable, "train.py", "-m", *typed, "optimizer.lr=1e-4,1e-5", f"hydra.sweep.dir={tmp_path}/of_mine"],
        cwd=ROOT, env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    runs = [_runs(tmp_path / "of_mine" / job)[0] for job in "01"]
    assert [run.run_group for run in runs] == ["of_mine", "of_mine"]
    assert runs[0].run_id != runs[1].run_id
    rates = []
    for job in "01":
        (config,) = [record.config for record in _wandb_records(tmp_path / "of_mine" / job) if record.config.update]
        values = {item.key: json.loads(item.value_json) for item in config.update}
        rates.append(values["optimizer"]["lr"])
    assert rates == [1e-4, 1e-5]


def test_tensorboard_holds_metrics_and_panels(one_epoch, compose_config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(compose_config("train", [*one_epoch, "logger=tensorboard"], tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= SCALARS
    for name in ("val/panels", "val/worst", "val/depth_histogram"):
        assert events.Images(name)[0].height > 200
    (table,) = events.Tensors("val/worst/text_summary")
    lines = table.tensor_proto.string_val[0].decode().splitlines()
    assert lines[0].startswith("| id | scene | abs_rel |") and len(lines) == 2 + 5
    assert (tmp_path / "worst" / "epoch_001.png").is_file()


def test_wandb_is_offline_without_an_account(tmp_path, monkeypatch, caplog):
    from depth_lightning.reporting.loggers import wandb_logger

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_logger(tmp_path)._offline
    assert "recorded offline" in caplog.text
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert not wandb_logger(tmp_path)._offline
