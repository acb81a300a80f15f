"""The sheet shows what training sees."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depth_lightning.commands.show import show, spread, training_draws
from depth_lightning.data import Mixture
from depth_lightning.reporting.colour import DEPTH_COLOURS
from depth_lightning.reporting.sample_row import draw_truth_over
from depth_lightning.runs import objects
from depth_lightning.sample import DepthKind, DepthSample

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rooms(small):
    data = [override for override in small if override.startswith("data.")]
    return ["data=rooms", *data, "data.augmentation=article", "data.crop=[28,42]"]


@pytest.mark.parametrize(("split", "columns"), [("train", 1 + 3), ("val", 1 + 1)])
def test_a_sheet_of_rooms(rooms, compose_config, tmp_path, split, columns):
    path = show(compose_config("show", [*rooms, "images=2", f"split={split}"], tmp_path))
    assert path == tmp_path / f"{split}.png"
    sheet = cv2.imread(str(path))
    one = cv2.imread(str(show(compose_config("show", [*rooms, "images=1", f"split={split}"], tmp_path / "one"))))
    assert sheet.shape[0] == 2 * one.shape[0]
    assert sheet.shape[1] > columns * 2 * 200


def test_draws_are_those_of_training(rooms, compose_config, tmp_path):
    data = objects.build_data(compose_config("show", rooms, tmp_path))
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        batch = next(iter(loader))
        images = data.colour(batch.image, batch.seed)
        for row, name in enumerate(batch.id):
            index = next(index for index in range(12) if data.train_data.dataset[index].id == name)
            seen = training_draws(data, index, 2)[epoch]
            np.testing.assert_array_equal(seen.target, batch.target[row])
            torch.testing.assert_close(torch.from_numpy(seen.image), images[row].permute(1, 2, 0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [DepthKind.METRES, DepthKind.DISPARITY])
def test_truth_is_coloured_and_the_rest_is_grey(kind):
    image = np.random.default_rng(0).integers(0, 256, (100, 160, 3), np.uint8)
    target = np.full((100, 160), 2.0, np.float32)
    mask = np.zeros((100, 160), bool)
    mask[:, 80:] = True
    drawn = draw_truth_over(DepthSample(image, target * mask, mask, kind, "a"), 2.0, 4.0)
    assert drawn.shape == (200, 320, 3)
    nearest = 0 if kind == DepthKind.METRES else -1
    assert (drawn[:, 161:] == DEPTH_COLOURS[nearest]).all()
    assert (drawn[:, :159] == drawn[:, :159, :1]).all()


def test_a_sparse_truth_is_dots():
    mask = np.zeros((400, 600), bool)
    mask[200, 300] = True
    sample = DepthSample(np.zeros((400, 600, 3), np.uint8), mask * np.float32(3), mask, DepthKind.METRES, "a")
    coloured = (np.ptp(draw_truth_over(sample, 2.0, 4.0).astype(int), axis=2) > 0).sum()
    assert 4 <= coloured <= 16


def test_every_part_of_a_mixture_is_shown():
    parts = {"a": range(100), "b": range(1), "c": range(10)}
    assert spread(Mixture(parts), 6) == [0, 99, 100, 101, 110]


def test_disparity_and_metres_on_one_sheet(compose_config, tmp_path):
    for part in ("near", "far"):
        (tmp_path / part).mkdir()
        for number in range(3):
            cv2.imwrite(str(tmp_path / part / f"{number}.jpg"), np.full((60, 80, 3), 90, np.uint8))
            cv2.imwrite(str(tmp_path / part / f"{number}.png"), np.arange(4800, dtype=np.uint16).reshape(60, 80))
    overrides = ["data=mixture_base", "data.size=42", "data.crop=[42,42]"]
    for part, kind in (("near", "disparity"), ("far", "metres")):
        overrides += [f"+data@data.parts.{part}=pairs", f"data.parts.{part}.root={tmp_path / part}"]
        overrides += [f"data.parts.{part}.image=*.jpg", f"data.parts.{part}.depth=*.png"]
        overrides += [f"data.parts.{part}.kind={kind}", f"data.parts.{part}.depth_scale=1000"]
    assert show(compose_config("show", [*overrides, "draws=1"], tmp_path / "run")).is_file()


@pytest.mark.parametrize(
    ("overrides", "match"),
    [(["split=test"], "split is train or val, found 'test'"), (["data=da2k"], "no depth maps")],
)
def test_what_cannot_be_shown_is_said(overrides, match, compose_config, tmp_path):
    with pytest.raises(ValueError, match=match):
        show(compose_config("show", overrides, tmp_path))
