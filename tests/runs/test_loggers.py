"""What a run logs is read back from the loggers' own files."""

import json
import struct

import pytest

from depth_lightning.commands.train import train

SCALARS = {
    *("train/loss", "train/gradient_norm", "val/abs_rel", "lr/encoder", "lr/head"),
    *("time/images_per_s", "time/data_wait_share"),
}


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
