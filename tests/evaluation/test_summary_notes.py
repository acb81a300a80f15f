"""The notes below an evaluation's table."""

import pytest

from depth_lightning.evaluation.summary import _interval_notes
from depth_lightning.metrics import Intervals
from depth_lightning.reporting.result import EvaluationResult


@pytest.mark.parametrize(
    "units, total, note",
    [
        ("scenes", 6, "Intervals: bootstrap over 6 scenes, fewer than 20, so they are rough."),
        ("images", 654, "Intervals: bootstrap over 654 images."),
        ("scenes", 20, "Intervals: bootstrap over 20 scenes."),
        ("images", 4, "4 images are too few for intervals."),
    ],
)
def test_intervals_of_few_units_are_called_rough(units, total, note):
    result = EvaluationResult({}, {}, None, Intervals({}, units, total), None, None)
    assert _interval_notes(result) == [note]
