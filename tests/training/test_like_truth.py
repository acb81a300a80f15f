"""Predictions in the unit of their truth, against closed forms."""

import math

import pytest
import torch

from depth_lightning.models import DepthAnythingV2
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training.health.incident import _in_unit_of_truth
from depth_lightning.training.like_truth import converted, like_truth

DEPTH_M = torch.tensor([[[1.0, 2.0, 4.0], [5.0, 8.0, 10.0]]])
MASK = torch.ones(1, 2, 3, dtype=torch.bool)
METRIC, RELATIVE = (DepthAnythingV2("tiny", output) for output in ("metric", "relative"))


@pytest.mark.parametrize(
    ("network", "kind", "prediction", "target", "expected"),
    [
        (METRIC, DepthKind.METRES, 3 * DEPTH_M, DEPTH_M, 3 * DEPTH_M),  # the same unit: as it is
        (METRIC, DepthKind.UP_TO_SCALE, 3 * DEPTH_M, 0.5 * DEPTH_M, 0.5 * DEPTH_M),
        (METRIC, DepthKind.DISPARITY, DEPTH_M, 7 / DEPTH_M + 2, 7 / DEPTH_M + 2),
        (RELATIVE, DepthKind.METRES, 3 / DEPTH_M + 1, DEPTH_M, DEPTH_M),
        (RELATIVE, DepthKind.UP_TO_SCALE, 3 / DEPTH_M + 1, 0.5 * DEPTH_M, 0.5 * DEPTH_M),
        (RELATIVE, DepthKind.DISPARITY, 3 / DEPTH_M + 1, 7 / DEPTH_M + 2, 7 / DEPTH_M + 2),
    ],
)
def test_what_has_no_unit_in_common_is_fitted(network, kind, prediction, target, expected):
    fitted = like_truth(network, prediction, target, MASK, kind)
    assert fitted.determined.all()
    torch.testing.assert_close(fitted.depth, expected)


def test_depth_and_disparity_of_what_a_network_gives():
    torch.testing.assert_close(converted(METRIC, DEPTH_M, to_disparity=True), 1 / DEPTH_M)
    torch.testing.assert_close(converted(RELATIVE, DEPTH_M, to_disparity=False), 1 / DEPTH_M)
    assert converted(METRIC, DEPTH_M, to_disparity=False) is DEPTH_M
    assert converted(RELATIVE, DEPTH_M, to_disparity=True) is DEPTH_M
    assert converted(METRIC, torch.zeros(1), to_disparity=True).item() == pytest.approx(1e6)


def test_an_incident_s_pictures_fit_what_is_finite():
    """One image of each kind, with a target and a prediction in it that are no numbers."""
    kinds = (DepthKind.METRES, DepthKind.UP_TO_SCALE, DepthKind.DISPARITY)
    target = torch.cat([DEPTH_M, 0.5 * DEPTH_M, 7 / DEPTH_M + 2])
    expected = target.clone()
    prediction = DEPTH_M.repeat(3, 1, 1)
    target[:, 0, 0], prediction[:, 1, 2] = math.nan, math.inf
    names = ("a", "b", "c")
    unknown = torch.full((3, 4), torch.nan)
    batch = DepthBatch(torch.zeros(3, 3, 2, 3), target, MASK.repeat(3, 1, 1), unknown, kinds, names, names)
    shown = _in_unit_of_truth(METRIC, batch, prediction)
    usable = target.isfinite() & prediction.isfinite()
    torch.testing.assert_close(shown[usable], expected[usable])
    assert shown[0, 1, 2] == shown[1, 1, 2] == math.inf
