"""data.on_error, from the command line to the table."""

import csv
import json
import logging

import h5py
import numpy as np
import pytest

from depth_lightning.commands.train import train
from depth_lightning.data.rooms import render_room
from depth_lightning.settings import SettingError


@pytest.fixture(scope="module")
def nyu(tmp_path_factory):
    """100 frames of each split, in NYU's layout; one of each is cut short."""
    root = tmp_path_factory.mktemp("nyu")
    for split in ("train", "val"):
        image, depth = render_room((len(split),), 42, 56)
        for number in range(100):
            file = root / split / "room" / f"{number:03d}.h5"
            file.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(file, "w") as h5:
                h5["rgb"] = np.roll(image, number, axis=1).transpose(2, 0, 1)
                h5["depth"] = np.roll(depth, number, axis=1)
        broken = root / split / "room" / "042.h5"
        broken.write_bytes(broken.read_bytes()[:2000])
    return root


OPTIONS = ["experiment=rooms", "data=nyu", "data.size=42", "data.crop=null", "data.batch_size=20", "data.num_workers=0"]


def config(compose_config, nyu, folder, *more):
    options = [*OPTIONS, f"data.root={nyu}", "trainer.max_epochs=1", "callbacks.panels.images=1", *more]
    return compose_config("train", options, folder)


def test_skip_goes_on_and_says_what_it_left_out(nyu, compose_config, tmp_path, capsys):
    assert np.isfinite(train(config(compose_config, nyu, tmp_path, "data.on_error=skip", "baseline=true")))
    with (tmp_path / "bad_samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["split"], row["path"]) for row in rows) == [
        (split, str(nyu / split / "room" / "042.h5")) for split in ("train", "val")
    ]
    assert "Of the images left out, 1 could not be read" in " ".join(capsys.readouterr().out.split())
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert (result["images"], result["images_unreadable"]) == (99, 1)


def test_raise_is_the_default(nyu, compose_config, tmp_path):
    with pytest.raises(ValueError, match=r"room/042\.h5: expected an HDF5 file"):
        train(config(compose_config, nyu, tmp_path))


def test_too_many_end_the_run(nyu, compose_config, tmp_path, caplog):
    for number in (7, 8):
        path = nyu / "train" / "room" / f"{number:03d}.h5"
        path.write_bytes(b"")
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match=r"2 of 100 train samples cannot be read"):
        train(config(compose_config, nyu, tmp_path, "data.on_error=skip"))
    assert "Passed over (train" in caplog.text


def test_another_word_is_refused(nyu, compose_config, tmp_path):
    with pytest.raises(SettingError, match=r"^data\.on_error is raise or skip, found 'ignore'\.$"):
        train(config(compose_config, nyu, tmp_path, "data.on_error=ignore"))
