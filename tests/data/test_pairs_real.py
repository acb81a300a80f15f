"""Real frames of nine sets, read as a user declares them, against the figures that came with them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from depth_lightning.runs.objects import dataset_of
from depth_lightning.sample import DepthKind

CONF = Path(__file__).resolve().parents[2] / "conf"
SETS = ["arkit", "kitti", "kitti_lidar", "middlebury", "nuscenes", "priorda", "sun", "tabletop", "tum"]


@pytest.fixture(scope="session")
def index(realdata):
    return json.loads((realdata / "pairs" / "index.json").read_text())


def everything(*overrides, names=("train", "val")):
    """The samples of both splits, or of those that are named."""
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", ["data=pairs", *overrides])
    partial = dataset_of(cfg.data)
    splits = [partial(split=split) for split in names]
    return [sample for split in splits for sample in split]


def check(sample, entry):
    valid = sample.target[sample.mask]
    assert sample.mask.mean() == pytest.approx(entry["valid"], abs=6e-5)
    figures = (valid.min(), np.median(valid), valid.max())
    assert figures == pytest.approx([entry["min"], entry["median"], entry["max"]], abs=6e-4)
    assert (sample.target[~sample.mask] == 0).all()
    assert sample.kind == (DepthKind.METRES if entry["unit"] == "m" else DepthKind.DISPARITY)


@pytest.mark.parametrize("name", SETS)
def test_each_set_through_a_yaml(name, index, realdata, tmp_path):
    entries = {entry["rgb"]: entry for entry in index if entry["set"] == name}
    scale = {entry["scale"] for entry in entries.values()}.pop()
    yaml = {"kitti_lidar": "kitti", "nuscenes": "kitti", "tum": "pairs"}.get(name, name)  # not in TUM's own layout
    group = yaml if (CONF / "data" / f"{yaml}.yaml").is_file() else "pairs"
    overrides = [f"data={group}", f"data.root={realdata / 'pairs'}", f"data.depth_scale={scale}"]
    if len(entries) > 1:
        overrides += [f"data.image='{name}/{{frame}}.rgb.{{ext}}'", f"data.depth='{name}/{{frame}}.depth.png'"]
        samples = everything(*overrides)
    else:  # a single frame cannot be split
        ((rgb, entry),) = entries.items()
        (tmp_path / "a.csv").write_text(f"image,depth,split\n{rgb},{entry['depth']},val\n")
        samples = everything(*overrides, f"data.manifest={tmp_path / 'a.csv'}", names=["val"])
    assert {sample.id for sample in samples} == set(entries)
    for sample in samples:
        check(sample, entries[sample.id])


def test_one_manifest_of_all_metric_sets(index, realdata, tmp_path):
    metric = [entry for entry in index if entry["kind"] == "metric_depth"]
    with (tmp_path / "metric.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "depth", "scene", "depth_scale"])
        table.writerows([entry["rgb"], entry["depth"], entry["set"], entry["scale"]] for entry in metric)
    samples = everything(f"data.root={realdata / 'pairs'}", f"data.manifest={tmp_path / 'metric.csv'}")
    entries = {entry["rgb"]: entry for entry in metric}
    assert {sample.id for sample in samples} == set(entries)
    for sample in samples:
        check(sample, entries[sample.id])


def test_motorcycle_in_metres(realdata, tmp_path):
    """The one Middlebury frame whose calibration is known: its room is a few metres deep."""
    row = "middlebury/motorcycle.rgb.png,middlebury/motorcycle.depth.png,994.978,0.193001,31.086"
    (tmp_path / "a.csv").write_text(f"image,depth,focal_px,baseline_m,depth_offset,split\n{row},val\n")
    paths = (f"data.root={realdata / 'pairs'}", f"data.manifest={tmp_path / 'a.csv'}")
    (sample,) = everything(*paths, "data.depth_scale=256", names=["val"])
    valid = sample.target[sample.mask]
    assert sample.kind == DepthKind.METRES
    expected = [0.193001 * 994.978 / (disparity + 31.086) for disparity in (59.9102, 38.7344, 7.1914)]
    assert (valid.min(), np.median(valid), valid.max()) == pytest.approx(expected, rel=1e-3)
    assert 2 < valid.min() < valid.max() < 6
