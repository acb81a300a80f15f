"""What goes into a page."""

import html.parser
import json
import zlib

import numpy as np
import pytest
import torch
from planted_page import Planted, collect, make_page, room

from depth_lightning.evaluation.page_images import ALL_PIXELS
from depth_lightning.metrics import ERRORS, DepthMetrics, Protocol
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.page.images import EACH, chosen
from depth_lightning.reporting.page.maps import quantise, reduced_pixels
from depth_lightning.sample import DepthKind
from depth_lightning.training import DepthModule

HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(2)>&amp;\u2028{{script}}'


def _decoded(encoded, shape):
    """As maps.py says, with NumPy."""
    planes = np.frombuffer(zlib.decompress(encoded.data), np.uint8).reshape(2, -1).astype(int)
    folded = planes[0] * 256 + planes[1]
    codes = np.cumsum(np.where(folded % 2, -(folded + 1) // 2, folded // 2)).reshape(shape)
    return np.where(codes > 0, encoded.low + (codes - 1) * encoded.step, np.nan)


@pytest.mark.parametrize("steps", [2**12, 2**14, 2**15 - 2])
def test_a_quantised_map_is_off_by_half_a_step_at_most(steps):
    rng = np.random.default_rng(0)
    values = rng.uniform(-3, 80, (37, 53)).astype(np.float32)
    values[0, :2] = -3, 80  # the largest difference there can be
    known = rng.random(values.shape) < 0.7
    known[0, :2] = True
    values[~known] = np.nan
    encoded = quantise(values, known, steps)
    decoded = _decoded(encoded, values.shape)
    assert encoded.step == pytest.approx(83 / steps)
    assert np.array_equal(np.isnan(decoded), ~known)
    assert np.abs(decoded - values)[known].max() <= 0.5001 * encoded.step


def test_maps_of_one_value_or_none_are_maps_too():
    everywhere = np.ones((3, 4), bool)
    assert np.all(_decoded(quantise(np.full((3, 4), 2.5), everywhere), (3, 4)) == 2.5)
    assert np.isnan(_decoded(quantise(np.zeros((3, 4)), ~everywhere), (3, 4))).all()


def test_a_reduced_map_keeps_valid_pixels_in_their_blocks():
    rng = np.random.default_rng(0)
    mask = rng.random((375, 1242)) < 0.02  # a sweep of a LiDAR
    indices = reduced_pixels(mask, 19_200)
    height, width = indices.shape
    assert height * width == pytest.approx(19_200, rel=0.02) and width / height == pytest.approx(1242 / 375, rel=0.02)
    row, column = np.divmod(indices, 1242)
    assert np.abs(row - (np.arange(height)[:, None] + 0.5) * 375 / height).max() <= 375 / height / 2 + 1
    assert np.abs(column - (np.arange(width) + 0.5) * 1242 / width).max() <= 1242 / width / 2 + 1
    # A block of 24 pixels has a valid one in 1 − 0.98²⁴ = 38 % of cases; taking the middle would keep 2 %.
    assert 0.3 < mask.ravel()[indices].mean() < 0.4
    dense = np.ones((48, 64), bool)
    assert np.array_equal(reduced_pixels(dense, 48 * 64), np.arange(48 * 64).reshape(48, 64))


def test_best_and_worst_are_those_of_all_images_on_any_number_of_processes():
    errors = np.random.default_rng(1).permutation(np.linspace(0.01, 0.5, 21))
    planted = [room(index, error, height=12, width=16) for index, error in enumerate(errors)]

    def module():
        return DepthModule(DepthAnythingV2("tiny"))

    alone = collect(planted, module()).gathered()
    found = chosen(alone)
    relative = [np.abs(one.prediction / np.where(one.mask, one.target, 1) - 1)[one.mask].mean() for one in planted]
    by_error = sorted(range(21), key=relative.__getitem__)
    assert [alone[index].id for index in found["depth", "worst"]] == [planted[i].id for i in by_error[:-5:-1]]
    assert [alone[index].id for index in found["depth", "best"]] == [planted[i].id for i in by_error[:4]]
    halves = [collect(planted[part::2], module(), of=21).gathered() for part in range(2)]
    together = sorted([*halves[0], *halves[1]], key=lambda image: image.id)
    assert chosen(together) == found
    assert all(alone[index].large for indices in found.values() for index in indices)
    assert sum(image.large is not None for image in alone) <= 3 * EACH
    assert not {*found["depth", "random"]} & {*found["depth", "best"], *found["depth", "worst"]}


def test_more_images_get_smaller_maps():
    module = DepthModule(DepthAnythingV2("tiny"))
    (image,) = collect([room(0, height=480, width=640)], module, of=500).gathered()
    assert (image.small.height, image.small.width) == (120, 160) and image.large.width == 640
    (image,) = collect([room(0, height=480, width=640)], module, of=20_000).gathered()
    assert image.small.height * image.small.width <= 1.05 * ALL_PIXELS / 20_000


def _shown(image, values="prediction"):
    return _decoded(getattr(image.small, values), (image.small.height, image.small.width))


def _planted(name, kind, prediction, target):
    return Planted(name, target.astype(np.float32), np.ones(target.shape, bool), prediction.astype(np.float32), kind)


def test_predictions_are_shown_in_the_unit_of_their_truth():
    depth = np.random.default_rng(0).uniform(1, 8, (24, 32))
    for output, to_output in {"metric": lambda metres: metres, "relative": lambda metres: 3 / metres + 0.2}.items():
        relative = output == "relative"
        protocol = Protocol(alignment="scale_shift_disparity" if relative else "none")
        module = DepthModule(DepthAnythingV2("tiny", output=output), DepthMetrics(protocol))
        planted = [
            _planted("disparity", DepthKind.DISPARITY, to_output(depth), 5 / depth + 1),
            _planted("metres", DepthKind.METRES, to_output(depth), depth),
            _planted("scale", DepthKind.UP_TO_SCALE, to_output(depth), 7 * depth),
        ]
        found = {image.id: image for image in collect(planted, module).gathered()}
        said = {name: image.shown_as for name, image in found.items()}
        for name, truth in (("metres", depth), ("scale", 7 * depth), ("disparity", 5 / depth + 1)):
            if relative and name == "scale":
                continue  # its range is beyond the protocol's max_depth in part, to which nothing is fitted
            assert _shown(found[name]) == pytest.approx(truth, rel=4e-3), (output, name)
        assert "scale and shift fitted" in said["disparity"]
        assert said["disparity"].startswith(
            "The prediction is disparity" if relative else "The prediction is 1 / depth"
        )
        assert ("in disparity, then 1 / disparity" if relative else "in metres") in said["metres"]
        assert np.isnan(found["scale"].error) == (not relative)


def test_a_prediction_that_is_not_finite_is_worst_and_has_no_value():
    broken = room(0)
    broken.prediction[30, 40] = np.nan
    module = DepthModule(DepthAnythingV2("tiny"))
    images = collect([room(1), broken, room(2, 3.0)], module).gathered()
    assert images[chosen(images)["depth", "worst"][0]].id == broken.id
    assert np.argwhere(np.isnan(_shown(images[0]))).tolist() == [[30, 40]]


class _Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.content, self._script = [], "", None

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._script = dict(attributes).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._script == "content":
            self.content += data
            self._script = None


def test_names_and_values_are_text_whatever_they_hold(tmp_path):
    planted = [room(index, id=f"{index} {HOSTILE}", scene=f"{index % 6} {HOSTILE}") for index in range(12)]
    hostile = dict.fromkeys(("title", "config", "command"), HOSTILE)
    page = make_page(tmp_path, planted, notes=[HOSTILE], versions={HOSTILE: HOSTILE}, **hostile)
    text = page.path.read_text()
    reader = _Reader()
    reader.feed(text)
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    scripts = [attributes for tag, attributes in reader.tags if tag == "script"]
    assert [attributes for attributes in scripts if "type" not in attributes] == [{}]
    content = json.loads(reader.content)
    assert sorted(image["id"] for image in content["images"]) == sorted(one.id for one in planted)
    assert text.count('alert("1")') == 0  # quotes and brackets stand escaped, in the text and in the data


@pytest.mark.parametrize("more", [True, False])
def test_columns_point_the_way_that_their_metrics_state(more, tmp_path):
    def mine(prediction, target, mask):
        return prediction.mean(dim=(1, 2))

    mine.higher_is_better = more
    page = make_page(tmp_path, [room(0), room(1)], errors={**ERRORS, "mine": mine})
    text = page.path.read_text()
    reader = _Reader()
    reader.feed(text)
    columns = {
        column["name"]: (column["label"], column["higherIsBetter"]) for column in json.loads(reader.content)["columns"]
    }
    assert columns["mine"] == (f"mine {'↑' if more else '↓'}", more) and columns["delta1"] == ("delta1 ↑", True)
    assert columns["abs_rel"] == ("abs_rel ↓", False) and columns["valid_share"] == ("valid_share", None)
    assert f"<th scope=row>mine {'↑' if more else '↓'}</th>" in text


def test_nothing_is_left_when_a_page_cannot_be_written(tmp_path, monkeypatch):
    page = make_page(tmp_path, [room(0)])
    before = page.path.read_bytes()
    monkeypatch.setattr("depth_lightning.reporting.page.write._data", lambda images: iter([b"not text"]))
    with pytest.raises(TypeError):
        make_page(tmp_path, [room(1)])
    assert [*tmp_path.iterdir()] == [page.path] and page.path.read_bytes() == before


def test_gathering_over_processes_takes_the_images_of_all(monkeypatch):
    module = DepthModule(DepthAnythingV2("tiny"))
    other = collect([room(1)], module).gathered()

    def all_gather_object(parts, own):
        parts[:] = [own, other]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", all_gather_object)
    assert [image.id for image in collect([room(2), room(0)], module).gathered()] == [room(i).id for i in range(3)]
