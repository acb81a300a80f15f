"""Every reader of a checkpoint says the same of the same file, and nothing that a file brings is run."""

import io
import os
import random
import zipfile

import pytest
import torch

from depth_lightning.inference import load
from depth_lightning.models import DepthAnythingV2, load_weights
from depth_lightning.models.torch_files import CheckpointError, NotARunError, read_run, read_torch
from depth_lightning.runs.checkpoint import read_run_checkpoint
from depth_lightning.training.saving.checkpoint_files import WholeFiles, whole_step


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def saved(content, legacy=False):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def checkpoint():
    weights = {f"network.{number}": torch.arange(2000.0) + number for number in range(3)}
    return {"global_step": 7, "config": {"model": {"encoder": "tiny"}}, "state_dict": weights}


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


def a_zip_file():
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("photo.png", b"...")
    return buffer.getvalue()


WHOLE, LEGACY = saved(checkpoint()), saved(checkpoint(), legacy=True)
SPOILED = {
    "empty": (b"", "{path} is empty."),
    "cut": (WHOLE[: len(WHOLE) // 2], "{path} is torn or damaged. Copy or download it again."),
    "cut, old": (LEGACY[: len(LEGACY) // 2], "{path} is torn or damaged. Copy or download it again."),
    "its values damaged": (
        flipped(WHOLE, WHOLE.index(b"global_step")),
        "{path} is damaged: its part archive/data.pkl is not what was written.",
    ),
    "code": (
        saved({**checkpoint(), "x": Malicious("was-run")}),
        "{path} was refused: it holds more than tensors and plain values, and reading it could run code that it "
        "contains. Ask its author for a plain state dict.",
    ),
    "a page": (
        b"<!DOCTYPE html><html>",
        "{path} is no checkpoint: it starts with b'<!DOCTYPE html><', as no file of torch does.",
    ),
    "a zip file": (a_zip_file(), "{path} is no checkpoint, but a zip file of something else."),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_one_message_for_each_cause(spoiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = SPOILED[spoiled]
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    message = message.format(path=path)
    other_kind = spoiled in ("a page", "a zip file")
    readers = {
        read_torch: message,
        whole_step: message,
        lambda path: load_weights(DepthAnythingV2("tiny"), path): message,
        read_run_checkpoint: f"checkpoint={message}"
        + (f" For released weights, use model=… model.weights={path}." if other_kind else ""),
    }
    if not other_kind:  # what it could be else is for `load` to find out
        readers[load] = message
    for reader, expected in readers.items():
        with pytest.raises(CheckpointError) as error:
            reader(path)
        assert str(error.value) == expected
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_file_that_is_missing_and_one_in_parts(tmp_path):
    missing, folder = tmp_path / "none.ckpt", tmp_path / "last.ckpt"
    for reader in (read_torch, whole_step):
        with pytest.raises(FileNotFoundError, match=f"^{missing}: there is no such file.$"):
            reader(missing)
    with pytest.raises(FileNotFoundError, match=f"^checkpoint={missing}: there is no such file.$"):
        read_run_checkpoint(missing)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"It is a folder; did you mean .*/run/checkpoints/best\.ckpt\?$"):
        read_run_checkpoint(tmp_path / "run")
    folder.mkdir()
    torch.save({"global_step": 1}, folder / "meta.pt")
    message = rf"{folder} is in parts, one from each process .* use {tmp_path}/best\.ckpt, which is complete\.$"
    for reader in (
        read_torch,
        lambda path: load_weights(DepthAnythingV2("tiny"), path),
        read_run_checkpoint,
        WholeFiles().load_checkpoint,
    ):
        with pytest.raises(CheckpointError, match=message):
            reader(folder)


def test_what_is_whole_is_read_alike(tmp_path):
    for name, content in {"last.ckpt": WHOLE, "old.ckpt": LEGACY}.items():
        path = tmp_path / name
        path.write_bytes(content)
        assert whole_step(path) == 7
        config, state = read_run_checkpoint(path)
        assert config == {**checkpoint()["config"], "adapter": None}
        assert all(torch.equal(state[key], tensor) for key, tensor in checkpoint()["state_dict"].items())


def test_a_file_of_torch_that_is_no_run_s(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(3)}, path)
    assert read_torch(path)["weight"].tolist() == [1, 1, 1]
    with pytest.raises(NotARunError, match=r"weights\.pth is no checkpoint of train\.py: it holds no config and no"):
        read_run(path)
    torch.save([1, 2], path)
    with pytest.raises(NotARunError, match=r"it holds no global_step\.$"):
        whole_step(path)
    torch.save({"global_step": "seven"}, path)
    with pytest.raises(NotARunError, match=r"its global_step is 'seven'\.$"):
        whole_step(path)


def test_only_whole_step_reads_every_byte(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(flipped(WHOLE, WHOLE.index(torch.arange(100.0, 110).numpy().tobytes())))
    with pytest.raises(CheckpointError, match=r"is damaged: its part archive/data/0 is not what was written"):
        whole_step(path)
    assert read_run(path)["global_step"] == 7


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_but_its_own_error_comes_of_bytes_that_were_changed(legacy, tmp_path):
    content, path, chance = LEGACY if legacy else WHOLE, tmp_path / "last.ckpt", random.Random(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(chance.choice([1, 3, 20])):
            changed[chance.randrange(len(changed) if chance.random() < 0.5 else 1500)] = chance.randrange(256)
        path.write_bytes(changed[: chance.randrange(len(changed)) if chance.random() < 0.2 else None])
        for reader in (read_run, whole_step):
            try:
                reader(path)
            except CheckpointError as error:
                assert str(error).startswith(str(path))
                refused += 1
    assert refused > 300
