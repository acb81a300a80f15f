"""Boundary F1 against Depth Pro's published evaluation (golden file), closed forms and invariances."""

import json

import numpy as np
import pytest
import torch

from depth_lightning.metrics import boundary, boundary_f1
from depth_lightning.metrics.boundary import boundary_precision, boundary_recall
from depth_lightning.metrics.errors import directions


@pytest.fixture(scope="module")
def maps(golden):
    return {name: torch.from_numpy(each) for name, each in np.load(golden / "boundary.npz").items()}


def test_equals_the_published_evaluation(maps, golden, monkeypatch):
    rows = json.loads((golden / "boundary.json").read_text())
    assert len(rows) >= 10
    for row in rows:
        target, prediction = maps[row["target"]][None], maps[row["prediction"]][None]
        mask = torch.ones_like(target, dtype=torch.bool)
        assert boundary_f1(prediction, target, mask).item() == pytest.approx(row["boundary_f1"], abs=1e-5)
        for threshold, expected in row["at"].items():
            with monkeypatch.context() as only:
                only.setattr(boundary, "THRESHOLDS", torch.tensor([float(threshold)], dtype=torch.float64))
                found = [f(prediction, target, mask).item() for f in (boundary_precision, boundary_recall, boundary_f1)]
            assert found == pytest.approx([expected[name] for name in ("precision", "recall", "f1")], abs=1e-5)


def test_counts_only_pairs_of_valid_pixels():
    target = torch.tensor([[[1.0, 2.0, 2.0, 4.0]]])
    prediction = torch.tensor([[[1.0, 2.0, 2.0, 2.0]]])
    whole = torch.ones(1, 1, 4, dtype=torch.bool)
    # One of the two edges, each seen from one side: a quarter of the four directions.
    assert boundary_precision(prediction, target, whole).item() == pytest.approx(1 / 4)
    assert boundary_recall(prediction, target, whole).item() == pytest.approx(1 / 8)
    without_last = torch.tensor([[[True, True, True, False]]])
    assert boundary_recall(prediction, target, without_last).item() == pytest.approx(1 / 4)


def test_neither_the_scale_nor_the_neighbours_in_the_batch_matter(maps):
    target, prediction = (maps[name][None] for name in ("target_1", "blurred_1_1"))
    mask = torch.ones_like(target, dtype=torch.bool)
    alone = boundary_f1(prediction, target, mask)
    batch = boundary_f1(torch.cat([7 * prediction, target]), torch.cat([target] * 2), torch.cat([mask] * 2))
    torch.testing.assert_close(batch, torch.tensor([alone.item(), 1.0]))


def test_an_image_without_two_valid_neighbours_has_none():
    depth = torch.ones(1, 3, 3)
    mask = torch.zeros(1, 3, 3, dtype=torch.bool)
    mask[0, 1, 1] = True
    assert boundary_f1(depth, depth, mask).isnan().all()


def test_higher_is_better():
    functions = {"f1": boundary_f1, "precision": boundary_precision, "recall": boundary_recall}
    assert all(directions(functions).values())
