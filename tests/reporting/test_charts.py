"""The charts of a page: what sets their scale, and how bins with hardly any pixels are drawn."""

import re
from xml.etree import ElementTree

import pytest

from depth_lightning.reporting.page.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Bar,
    Point,
    bar_chart,
    calibration_chart,
    line_chart,
)


def _drawn(chart):
    return ElementTree.fromstring(chart).find("svg")


def _bars(chart):
    """(class, left, top, width, height, whether it is cut, words) of each bar."""
    return [
        (
            group.get("class"),
            *(float(group.find("rect").get(name)) for name in ("x", "y", "width", "height")),
            group.find("polygon") is not None,
            group.find("rect/title").text,
        )
        for group in _drawn(chart).iter("g")
    ]


def _x_labels(chart):
    bottom = str(HEIGHT - BOTTOM + 16)
    return [one.text for one in _drawn(chart).iter("text") if one.get("class") == "tick" and one.get("y") == bottom]


def test_a_sparse_bin_is_hollow_cut_and_does_not_set_the_scale():
    dense = [Bar(0.5, 1, 0.4, 0.005, "b"), Bar(1, 2, 0.1, 0.99, "c")]
    with_sparse = bar_chart("t", [Bar(0, 0.5, 14.72, 0.0049, "a"), *dense], "x", "y")
    (kind, _, top, _, height, cut, words), *others = _bars(with_sparse)
    assert (kind, cut, words) == ("bar sparse", True, "a")
    assert (top, height) == (TOP, HEIGHT - BOTTOM - TOP)
    assert "&lt; 0.5 % of the pixels" in with_sparse
    alone = bar_chart("t", dense, "x", "y")
    assert [bar[4] for bar in others] == [bar[4] for bar in _bars(alone)]
    assert others[0][4] == pytest.approx((HEIGHT - BOTTOM - TOP) / 1.05, abs=0.1)  # the highest one all but fills it
    assert [bar[0] for bar in _bars(alone)] == ["bar", "bar"] and "of the pixels" not in alone


def test_a_sparse_bin_within_the_scale_is_not_cut_and_one_below_it_is():
    bars = [
        Bar(0, 1, 5.0, 0.5, ""),
        Bar(1, 2, -5.0, 0.4998, ""),
        Bar(2, 3, 3.0, 0.0001, ""),
        Bar(3, 4, -90, 0.0001, ""),
    ]
    chart = bar_chart("t", bars, "x", "y")
    assert [bar[5] for bar in _bars(chart)] == [False, False, False, True]
    zero = _bars(chart)[1][2]
    assert _bars(chart)[3][2] == zero and zero + _bars(chart)[3][4] == pytest.approx(HEIGHT - BOTTOM, abs=0.1)


def test_bars_are_of_one_width_between_the_edges_of_their_bins():
    chart = bar_chart("t", [Bar(0, 0.5, 1, 0.2, ""), Bar(0.5, 2, 1, 0.4, ""), Bar(5, 80, 1, 0.4, "")], "x", "y")
    step = (WIDTH - LEFT - RIGHT) / 4  # edges 0, 0.5, 2, 5, 80: the bin from 2 to 5 has no pixel
    assert [bar[1] for bar in _bars(chart)] == pytest.approx([LEFT + place * step + 1 for place in (0, 1, 3)], abs=0.06)
    assert [bar[3] for bar in _bars(chart)] == pytest.approx([step - 2] * 3, abs=0.06)
    assert _x_labels(chart) == ["0", "0.5", "2", "5", "80"]
    many = bar_chart("t", [Bar(edge, edge + 1, 1, 0.04, "") for edge in range(23)], "x", "y")
    assert _x_labels(many) == [str(edge) for edge in range(0, 24, 2)]


def test_values_that_are_zero_or_not_finite_make_charts_too():
    nan = float("nan")
    assert [bar[6] for bar in _bars(bar_chart("t", [Bar(0, 1, nan, 0.5, "a"), Bar(1, 2, 1, 0.5, "b")], "x", "y"))] == [
        "b"
    ]
    assert [bar[4] for bar in _bars(bar_chart("t", [Bar(0, 1, 0.0, 1, "")], "x", "y"))] == [0]
    assert bar_chart("t", [Bar(0, 1, nan, 1, "")], "x", "y") == calibration_chart("t", [Point(1, nan, 1, "")]) == ""


def test_calibration_is_scaled_and_joined_by_the_bins_that_are_not_sparse():
    points = [Point(0.3, 2.2, 0.00009, "a"), Point(1, 1, 0.5, "b"), Point(4, 3, 0.49, "c"), Point(9, 5, 0.0001, "d")]
    chart = calibration_chart("t", points)
    circles = list(_drawn(chart).iter("circle"))
    assert [one.get("class") for one in circles] == ["dot c0 sparse", "dot c0", "dot c0", "dot c0 sparse"]
    x = [float(one.get("cx")) for one in circles]
    side = WIDTH - LEFT - RIGHT
    assert x == pytest.approx([LEFT + side * min(1, point.truth / 4.2) for point in points], abs=0.06)
    assert float(circles[3].get("cy")) == TOP
    line = _drawn(chart).find("polyline").get("points")
    assert line == " ".join(f"{one.get('cx')},{one.get('cy')}" for one in circles[1:3])


def test_a_logarithmic_axis_ends_four_decades_below_its_largest_value():
    line = [(0, 1e-12), (1, 1e-3), (2, 1e-5), (3, 1.1e-7), (4, 1e-9), (5, 0)]
    words = re.findall(r"<title>(.*?)</title>", line_chart("t", {"encoder": line}, "step", "rate", log_y=True))
    assert words == [f"encoder: step {step}, rate {rate}" for step, rate in ((1, 0.001), (2, "1e-05"), (3, "1.1e-07"))]
    assert line_chart("t", {"encoder": [(0, 0.0)]}, "step", "rate", log_y=True) == ""


def test_one_point_is_no_chart():
    assert line_chart("t", {"val/abs_rel": [(0, 0.1), (1, float("nan"))]}, "step", "abs_rel") == ""
    assert line_chart("t", {"val/abs_rel": [(0, 0.1), (1, 0.2)]}, "step", "abs_rel")
