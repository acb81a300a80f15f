"""What a run logs is read back from the loggers' own files."""

import json
import struct

import pytest

from depth_lightning.commands.train import train


@pytest.fixture
def one_epoch(small):
    return [*small, "trainer.max_epochs=1"]


def _wandb_records(folder):
    """The records of an offline run: protobuf messages in a log framed like LevelDB's, in blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data = path.read_bytes()
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
    config, history = {}, {}
    for record in _wandb_records(tmp_path):
        for item in record.run.config.update:
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        for item in record.config.update:
            config[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        for item in record.history.item:
            history[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    assert config["model"]["encoder"] == "tiny"
    assert 0 < history["val/abs_rel"] < 10
    assert {"train/loss", "lr/encoder", "lr/head", "val/delta1"} <= set(history)
    assert history["val/panels._type"].startswith("image")
    (picture,) = tmp_path.glob("wandb/offline-run-*/files/media/images/val/panels*.png")
    assert picture.stat().st_size > 1000


def test_tensorboard_holds_metrics_and_panels(one_epoch, compose_config, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(compose_config("train", [*one_epoch, "logger=tensorboard"], tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "lr/encoder", "val/abs_rel"} <= set(events.Tags()["scalars"])
    assert events.Images("val/panels")[0].height > 200


def test_wandb_is_offline_without_an_account(tmp_path, monkeypatch, caplog):
    from depth_lightning.reporting.loggers import wandb_logger

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_logger(tmp_path)._offline
    assert "recorded offline" in caplog.text
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert not wandb_logger(tmp_path)._offline
