import numpy as np
import pytest
import torch

from depth_lightning.metrics import ERRORS, FACTS, AffineMetrics, DepthMetrics, Protocol, directions
from depth_lightning.metrics.per_image import ImageFacts, ImageRows


def _maps(images=4):
    generator = torch.Generator().manual_seed(0)
    target = 0.5 + 9 * torch.rand(images, 6, 8, generator=generator)
    mask = torch.rand(images, 6, 8, generator=generator) < 0.6
    mask[2] = False
    return target * (0.7 + 0.6 * torch.rand(images, 6, 8, generator=generator)), target, mask


def test_rows_are_packed_and_unpacked_by_name():
    columns = torch.arange(9.0)[:, None] + torch.arange(0, 1, 0.25)
    rows = ImageRows(columns[:2].T, ImageFacts(*columns[2:8]), columns[8] > 8.3)
    found = ImageRows.unpacked(rows.packed(), errors=2)
    assert torch.equal(found.errors, rows.errors)
    for name, column in found.facts._asdict().items():
        assert torch.equal(column, getattr(rows.facts, name)), name
    assert found.determined.tolist() == [False, False, True, True]


@pytest.mark.parametrize("alignment", ["none", "scale_least_squares", "scale_shift_depth"])
def test_facts_stand_under_their_names(alignment):
    prediction, target, mask = _maps()
    metrics = DepthMetrics(Protocol(max_depth=8.0, alignment=alignment))
    metrics.update(prediction, target, mask, ids=["d", "a", "c", "b"], scenes=["s", "t", "s", ""])
    table = metrics.images()
    assert table.id == ["a", "b", "c", "d"] and table.scene == ["t", "", "s", "s"] and (*table.facts,) == FACTS
    assert table.status == ["scored", "scored", "without_valid_pixel", "scored"]
    for row, image in enumerate((1, 3, 2, 0)):
        p, t = (values[image].double().numpy()[mask[image] & (target[image] < 8)] for values in (prediction, target))
        if not len(t):
            expected = [0, 0, *[np.nan] * 4]
            assert np.isnan([values[row] for values in table.errors.values()]).all()
        else:
            fitted = {
                "none": (np.nan, np.nan),
                "scale_least_squares": (p @ t / (p @ p), np.nan),
                "scale_shift_depth": tuple(np.polyfit(p, t, 1)),
            }
            expected = [len(t), len(t) / 48, t.min(), t.max(), *fitted[alignment]]
        found = [table.facts[name][row] for name in FACTS]
        assert found == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_an_error_may_have_the_name_of_a_fact():
    def scale(prediction, target, mask):
        return torch.full((len(mask),), 7.0)

    metrics = DepthMetrics(Protocol(alignment="scale_least_squares"), {"abs_rel": ERRORS["abs_rel"], "scale": scale})
    _, target, mask = _maps()
    metrics.update(2 * target, target, mask)
    assert metrics.compute() == {"abs_rel": pytest.approx(0, abs=1e-6), "scale": 7}
    assert metrics.images().facts["scale"][[0, 1, 3]] == pytest.approx(0.5)


def test_whether_more_is_better_is_stated_by_the_function():
    class Mine:
        higher_is_better = True

        def __call__(self, prediction, target, mask):
            return mask.sum(dim=(1, 2))

    def error(prediction, target, mask):
        return mask.sum(dim=(1, 2))

    found = directions({**ERRORS, "mine": Mine(), "error": error})
    assert {name for name, more in found.items() if more} == {"delta1", "delta2", "delta3", "mine"}
    assert DepthMetrics.higher_is_better is None
    assert AffineMetrics.higher_is_better is False and not any(directions(AffineMetrics().errors).values())
