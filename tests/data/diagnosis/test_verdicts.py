"""Every fault is planted into data that is right, and found; in the same data without it, nothing is."""

import re
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from depth_lightning.data import NYUDepthV2, RenderedRooms
from depth_lightning.data.diagnosis import HISTOGRAM, examine, judge, judge_splits, summarise
from depth_lightning.data.diagnosis.summary import suggest_max_depth
from depth_lightning.reporting.doctor_page import summary_rows
from depth_lightning.sample import DepthDataset, DepthKind, DepthSample

COUNT = 12
Change = Callable[[DepthSample, int], DepthSample]


class Planted(DepthDataset):
    """Samples of another data set, changed."""

    def __init__(self, samples, change):
        self.samples, self.change = samples, change

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.change(self.samples[index], index)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """Exact planar depth; one view of each room."""
    data = RenderedRooms(tmp_path_factory.mktemp("rooms"), "val", COUNT, height=120, width=160)
    return [data[index] for index in range(COUNT)]


@pytest.fixture(scope="module")
def kitchen(realdata):
    """A Kinect's depth."""
    data = NYUDepthV2(realdata / "nyu_h5", "train")
    return [data[index] for index in range(5, 65, 8)]


def found(samples, change):
    data = Planted(samples, change)
    verdicts = judge([examine(data, index, detailed=True) for index in range(len(data))])
    return {verdict.check: verdict for verdict in verdicts if verdict.state == "found"}


def of_depth(change, kind=DepthKind.METRES):
    def changed(sample, index):
        target = np.where(sample.mask, change(np.where(sample.mask, sample.target, 1)), 0).astype(np.float32)
        return sample._replace(target=target, mask=target > 0, kind=kind)

    return changed


def of_map(change):
    def changed(sample, index):
        target = np.ascontiguousarray(change(sample.target))
        return sample._replace(target=target, mask=target > 0)

    return changed


def along_the_ray(depth):
    """Distances for the focal length that Hypersim's cameras have."""
    height, width = depth.shape
    focal = 886.81 * width / 1024
    x, y = np.arange(width) - (width - 1) / 2, np.arange(height)[:, None] - (height - 1) / 2
    return depth * np.sqrt(1 + (x**2 + y**2) / focal**2)


def of_8_bits(depth):
    """Scaled to the map's own range, as pictures are."""
    low, high = depth.min(), depth.max()
    return np.round((depth - low) / (high - low) * 254 + 1) / 25


def moved(share):
    def shift(target):
        pixels = round(share * target.shape[1])
        return np.pad(target, ((0, 0), (pixels, 0)))[:, : target.shape[1]]

    return shift


KIND, RAYS, LEVELS = "depth or disparity as declared", "depth along the optical axis", "finer than 8 bits"
ALIGNED, UNIT = "image and depth are aligned", "unit is metres"

FAULTS = {
    "millimetres": (of_depth(lambda d: 1000 * d), UNIT, r"/ 1000 = "),
    "KITTI's unit": (of_depth(lambda d: 256 * d), UNIT, r"/ 256 = "),
    "divided once too often": (of_depth(lambda d: d / 1000), UNIT, r"× 1000 = "),
    "divided by 256": (of_depth(lambda d: d / 256), UNIT, r"× 256 = "),
    "disparity as depth": (of_depth(lambda d: 1 / d), KIND, "declared as depth, but"),
    "scaled disparity as depth": (of_depth(lambda d: 0.1 + 0.5 / d), KIND, "declared as depth, but"),
    "depth as disparity": (of_depth(lambda d: d, DepthKind.DISPARITY), KIND, "declared as disparity, but"),
    "8 bits": (of_depth(of_8_bits), LEVELS, "levels in even steps"),
    "distances along the ray": (of_depth(along_the_ray), RAYS, "bulge by 0"),
    "converted twice": (of_depth(lambda d: d / (along_the_ray(np.ones_like(d)))), RAYS, "bulge by -"),
    "mirrored": (of_map(lambda d: d[:, ::-1]), ALIGNED, "mirrored left to right"),
    "upside down": (of_map(lambda d: d[::-1]), ALIGNED, "upside down"),
    "turned": (of_map(lambda d: d[::-1, ::-1]), ALIGNED, "turned by 180"),
    "transposed": (of_map(lambda d: d.T), ALIGNED, "transposed"),
    "shifted by 8 %": (of_map(moved(0.08)), ALIGNED, r"moved by [78]\.\d % of the image's width to the left"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenes", ["rooms", "kitchen"])
def test_planted_fault_is_found(fault, scenes, request):
    change, check, evidence = FAULTS[fault]
    verdicts = found(request.getfixturevalue(scenes), change)
    assert check in verdicts, verdicts
    said = f"{verdicts[check].evidence} {verdicts[check].advice}"
    assert re.search(evidence, said), said
    assert verdicts[check].examples
    # One fault is not taken for several.
    assert list(verdicts) == [check], verdicts


@pytest.mark.parametrize("scenes", ["rooms", "kitchen"])
def test_nothing_is_found_in_what_is_right(scenes, request):
    samples = request.getfixturevalue(scenes)
    assert not found(samples, lambda sample, index: sample)
    assert not found(samples, of_depth(lambda d: 1 / d, DepthKind.DISPARITY))
    assert not found(samples, of_map(moved(0.01)))


def test_a_shift_by_a_twentieth_is_found_in_few_real_frames(kitchen):
    verdicts = found(kitchen, of_map(moved(0.05)))
    assert "moved by 5.0 % of the image's width to the left" in verdicts[ALIGNED].evidence


def only_the_fourth(change):
    return lambda sample, index: change(sample, index) if index == 3 else sample


def test_single_samples_are_named(rooms):
    empty = only_the_fourth(lambda s, i: s._replace(target=np.zeros_like(s.target), mask=np.zeros_like(s.mask)))
    grey = only_the_fourth(lambda s, i: s._replace(image=np.full_like(s.image, 128)))
    millimetres = only_the_fourth(of_depth(lambda d: 1000 * d))
    for change, check, evidence in (
        (empty, "valid pixels", "1 of 12 maps with under a tenth"),
        (grey, "images that show something", "1 of one colour"),
        (millimetres, "one unit for all", "1 of 12 maps with 1403 × the usual median"),
    ):
        verdicts = found(rooms, change)
        assert list(verdicts) == [check]
        assert verdicts[check].evidence.find(evidence) >= 0
        assert verdicts[check].examples == [rooms[3].id]
        assert verdicts[check].pictures == [3]


def test_undeclared_sky(rooms):
    def sky(sample, index):
        target = sample.target.copy()
        target[:30] = 65.535
        return sample._replace(target=target, mask=target > 0)

    verdicts = found(rooms, sky)
    assert "12 of 12 maps the largest value, 65.535" in verdicts["no sentinel value for far or unknown"].evidence


def test_broken_and_refused_samples_are_grouped(rooms):
    def broken(sample, index):
        if index < 3:
            raise ValueError(f"/data/{index}.h5: expected {index} bytes")
        return sample

    verdicts = found(rooms, broken)
    assert list(verdicts) == ["files that can be read"]
    (verdict,) = verdicts.values()
    assert verdict.evidence == "3 of 12 samples cannot be read: 3 such as /data/0.h5: expected 0 bytes"
    assert verdict.examples == ["sample 0", "sample 1", "sample 2"]


def test_nothing_can_be_read(rooms):
    def broken(sample, index):
        raise OSError("no")

    (verdict,) = found(rooms, broken).values()
    assert "12 of 12 samples cannot be read" in verdict.evidence
    summary = summarise([examine(Planted(rooms, broken), 0, detailed=False)])
    assert (summary.samples, summary.readable, summary.suggested_max_depth) == (1, 0, None)


@pytest.mark.parametrize("scenes", ["rooms", "kitchen"])
def test_near_duplicates(scenes, request):
    samples = request.getfixturevalue(scenes)

    def same(sample, index):
        return sample

    def copied(sample, index):
        """Two of the others, smaller, brighter and compressed."""
        if index >= 2:
            return sample
        image = cv2.resize(samples[4 + index].image, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
        bright = np.clip(1.05 * image + 4, 0, 255).astype(np.uint8)
        return sample._replace(image=cv2.imdecode(cv2.imencode(".jpg", bright)[1], cv2.IMREAD_COLOR))

    def split(change, indices):
        facts = [examine(Planted(samples, change), index, detailed=False) for index in indices]
        return [one._replace(scene=f"{index}") for one, index in zip(facts, indices, strict=True)]

    clean = judge_splits({"val": split(same, range(4)), "train": split(same, range(4, 8))})
    assert [verdict.state for verdict in clean] == ["fine", "fine"]
    duplicates, shared = judge_splits({"val": split(copied, range(4)), "train": split(same, range(4, 8))})
    assert duplicates.state == "found"
    assert "2 of 4 validation images" in duplicates.evidence
    assert sorted(example.split(" = ")[0] for example in duplicates.examples) == sorted(s.id for s in samples[:2])
    assert sorted(duplicates.pictures) == [0, 1]
    assert shared.state == "fine"
    _, shared = judge_splits({"val": split(same, range(2)), "train": split(same, range(1, 8))})
    assert (shared.state, shared.examples) == ("found", ["1"])


def test_figures_of_a_split(rooms):
    summary = summarise([examine(Planted(rooms, lambda s, i: s), index, detailed=False) for index in range(COUNT)])
    valid = np.concatenate([sample.target[sample.mask] for sample in rooms])
    np.testing.assert_allclose(summary.quantiles, np.quantile(valid, [0.001, 0.5, 0.999]), rtol=0.05)
    assert summary.histogram.sum() == valid.size
    assert summary.image_sizes == summary.target_sizes == {"160×120": COUNT}
    assert summary.scenes == COUNT
    assert summary.kind == "metres"
    assert summary.suggested_max_depth is not None
    assert summary.suggested_max_depth >= np.quantile(valid, 0.999) > summary.suggested_max_depth / 2
    assert summary.beyond == pytest.approx((valid > summary.suggested_max_depth).mean(), abs=2e-3)


@pytest.mark.parametrize(
    ("intrinsics", "evidence"),
    [
        ((20, 20, 79.5, 59.5), "12 of 12 have fields of view of 152 to 152°"),
        ((120, 120, 0, 59.5), "12 of 12 have a principal point far from the image's centre"),
        ((120, 160, 79.5, 59.5), "12 of 12 have focal lengths fx and fy that differ by more than a quarter"),
    ],
)
def test_cameras_that_cannot_be_right(rooms, intrinsics, evidence):
    verdict = found(rooms, lambda sample, _: sample._replace(intrinsics=np.float32(intrinsics)))
    assert verdict.keys() == {"cameras that can be right"}
    assert verdict["cameras that can be right"].evidence.startswith(evidence)


def test_fields_of_view_are_summarised(rooms):
    """Those of the longer side: 160 pixels with a focal length of 80 are 90 degrees."""

    def measured(change):
        data = Planted(rooms, change)
        return summarise([examine(data, index, detailed=False) for index in range(len(data))])

    def camera(sample, index):
        return sample._replace(intrinsics=np.float32([80 + index, 80, 79.5, 59.5]))

    low, middle, high = measured(camera).fov_deg
    assert high == pytest.approx(90)
    assert low == pytest.approx(np.degrees(2 * np.arctan(80 / 91)))
    assert low < middle < high
    assert measured(lambda sample, _: sample._replace(intrinsics=np.full(4, np.nan, np.float32))).fov_deg is None


@pytest.mark.parametrize(
    ("values", "suggested"),
    [
        ([9.99] * 1000, 10.0),  # the sensor's limit
        ([10.0] * 1000, 10.0),
        ([5.0] * 900 + [6.1] * 100, 8.0),  # 10 % would lie beyond 6 m
        ([5.0] * 99_990 + [60.0] * 10, 6.0),  # a few wrong pixels decide nothing; bins are 5 % wide
    ],
)
def test_the_suggested_depth_covers_the_data(values, suggested):
    values = np.array(values)
    assert suggest_max_depth(np.histogram(values, HISTOGRAM)[0], values.max()) == suggested


def test_both_splits_get_one_suggestion(rooms):
    def scaled(factor):
        planted = Planted(rooms, of_depth(lambda d: factor * d))
        return summarise([examine(planted, index, detailed=False) for index in range(COUNT)])

    near, far = scaled(0.2), scaled(1.0)
    assert near.suggested_max_depth < far.suggested_max_depth
    rows = {name: cells for name, *cells in summary_rows({"train": near, "val": far})}
    beyond = f"{100 * far.beyond:.2f} % beyond"
    depth = f"{far.suggested_max_depth:g} m"
    assert rows["suggested model.max_depth"] == [f"{depth} (0.00 % beyond)", f"{depth} ({beyond})"]
    assert all(cell.endswith(" m") for cell in rows["truth at 0.1 %, 50 %, 99.9 %"])
