"""Counts against NumPy's, and the order of what went worst."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depth_lightning.data.sampling import EvaluationSampler
from depth_lightning.metrics import ImageTable
from depth_lightning.reporting.depth_histogram import draw_depth_histogram
from depth_lightning.training.display import validation_pictures
from depth_lightning.training.display.validation_pictures import count_pixels, worst


def test_counts_are_numpys():
    generator = torch.Generator().manual_seed(0)
    target = 12 * torch.rand(2, 40, 50, generator=generator)
    prediction = target + torch.randn(target.shape, generator=generator)
    mask = torch.rand(target.shape, generator=generator) < 0.7
    prediction[0, 0, :2] = torch.tensor([torch.nan, torch.inf])
    counts = torch.zeros(20, 20, dtype=torch.int64)
    for _ in range(2):
        count_pixels(counts, target, prediction, mask, 10.0)
    counted = (mask & prediction.isfinite() & (target < 10)).numpy()
    inside = prediction.numpy()[counted].clip(0, 10)
    expected, _, _ = np.histogram2d(inside, target.numpy()[counted], bins=20, range=[[0, 10], [0, 10]])
    # float32 and float64 may put a pixel on the border of two bins into either.
    assert np.abs(counts.numpy() - 2 * expected).sum() <= 4
    assert counts.sum() == 2 * counted.sum()


def test_nothing_valid_counts_nothing():
    counts = torch.zeros(4, 4, dtype=torch.int64)
    nothing = torch.zeros(1, 2, 2)
    count_pixels(counts, nothing, nothing, nothing > 1, torch.tensor(torch.nan))
    assert not counts.any()


def test_picture_has_the_counts_where_the_axes_say():
    counts = np.zeros((10, 10), np.int64)
    counts[9, 0] = 1000  # near, predicted far: top left
    picture = draw_depth_histogram(counts, 5.0, "m")
    dark = np.argwhere(picture[56 : 56 + 480, 64 : 64 + 480].sum(axis=2) < 75)
    assert dark.min(axis=0).tolist() == [0, 0] and (dark.max(axis=0) < 50).all()


def table(errors, status, name="abs_rel"):
    ids = [f"image{number}" for number in range(len(errors))]
    return ImageTable(ids, [""] * len(ids), status, {name: np.array(errors)}, {})


@pytest.mark.parametrize("name", ["abs_rel", "affine_error"])
def test_worst_are_the_scored_with_the_largest_errors(name):
    status = ["scored", "without_valid_pixel", "scored", "scored", "not_aligned"]
    found = table([0.1, np.nan, 0.5, 0.3, np.nan], status, name)
    assert worst(found, 2) == [2, 3]
    assert worst(found, 9) == [2, 3, 0]
    assert worst(table([np.nan], ["not_aligned"], name), 9) == []


@pytest.mark.parametrize("length", [1, 5, 6])
def test_ids_of_all_processes_are_in_the_order_of_the_data(monkeypatch, length):
    shares = [
        [str(index) for index in EvaluationSampler(length, rank, 3).indices if index is not None] for rank in range(3)
    ]
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda found, own: found.__setitem__(slice(3), shares))
    trainer = SimpleNamespace(world_size=3)
    assert validation_pictures._in_order(trainer, shares[0]) == [str(index) for index in range(length)]
