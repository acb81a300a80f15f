"""metrics=normals, points and all, from a run to the comparison of two evaluations; unknown cameras are refused."""

import json

import cv2
import numpy as np
import pyarrow.parquet
import pytest
import torch

from depth_lightning.commands.compare import compare
from depth_lightning.commands.evaluate import evaluate
from depth_lightning.data import RenderedRooms
from depth_lightning.metrics.normals import normals_mean
from depth_lightning.metrics.points import points_f1
from depth_lightning.sample import collate

NAMES = {
    "normals": ["normals_mean", "normals_median", "normals_below_11", "normals_below_22", "normals_below_30"],
    "points": ["points_chamfer", "points_f1_5cm"],
}


def evaluated(trained, compose_config, folder, *more):
    checkpoint = f"checkpoint={trained[0]}/checkpoints/best.ckpt"
    typed = [checkpoint, "trainer=cpu", "panels=0", "breakdowns=false", "data.num_workers=0", *more]
    return evaluate(compose_config("evaluate", typed, folder), typed)


@pytest.fixture(scope="module")
def with_all(trained, compose_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    evaluated(trained, compose_config, folder, "metrics=all", "baseline=true")
    return folder


def test_every_family_is_in_the_tables_with_intervals(with_all):
    content = json.loads((with_all / "metrics.json").read_text())
    images = pyarrow.parquet.read_table(with_all / "per_image.parquet").to_pydict()
    for name in ("boundary_f1", *NAMES["normals"], *NAMES["points"]):
        assert content["metrics"][name] == pytest.approx(np.mean(images[name]), rel=1e-5), name
        low, high = content["intervals"][name]
        assert low <= content["metrics"][name] <= high
    higher = content["higher_is_better"]
    assert [higher[name] for name in NAMES["normals"]] == [False, False, True, True, True]
    assert [higher[name] for name in NAMES["points"]] == [False, True]
    assert 0 < content["metrics"]["normals_mean"] < 90
    assert content["baseline"]["metrics"]["points_chamfer"] > 0


def test_they_are_compared_like_the_others(with_all, trained, compose_config, tmp_path, capsys):
    evaluated(trained, compose_config, tmp_path / "two", "metrics=normals", "trainer.precision=bf16-mixed")
    compare([with_all, tmp_path / "two"])
    printed = capsys.readouterr().out
    assert "normals_mean ↓" in printed and "normals_below_11 ↑" in printed


def test_the_camera_is_that_of_the_truth(trained, tmp_path_factory):
    """A truth of twice the image's size has twice the image's focal length."""
    sample = RenderedRooms(tmp_path_factory.mktemp("rooms"), "val", count={"train": 1, "val": 1})[0]
    image = sample.image[::2, ::2]
    smaller = sample._replace(image=image, intrinsics=sample.intrinsics)
    cameras = collate([smaller]).target_intrinsics
    torch.testing.assert_close(cameras[0, :2], torch.from_numpy(2 * sample.intrinsics[:2]))
    same = collate([sample])
    torch.testing.assert_close(same.target_intrinsics, same.intrinsics)
    maps = same.target, same.target, same.mask
    assert normals_mean(*maps, same.target_intrinsics).item() == pytest.approx(0, abs=1e-3)
    assert points_f1(*maps, same.target_intrinsics).item() == 1


def test_an_unknown_camera_is_refused_with_the_key_to_type(trained, compose_config, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (42, 56, 3), dtype=np.uint8))
        np.save(tmp_path / f"{number}.npy", rng.uniform(1, 5, (42, 56)).astype(np.float32))
    rows = "\n".join(f"{number}.png,{number}.npy,val" for number in range(5))
    (tmp_path / "my.csv").write_text(f"image,depth,split\n{rows}\n")
    data = ["data=pairs", f"data.manifest={tmp_path}/my.csv", "metrics=normals"]
    with pytest.raises(ValueError, match=r"^metrics\.normals_mean needs the camera of 0\.png, .*data\.intrinsics=\["):
        evaluated(trained, compose_config, tmp_path / "out", *data)
    result = evaluated(trained, compose_config, tmp_path / "out", *data, "data.intrinsics=[40,40,27.5,20.5]")
    assert 0 < result.metrics["normals_mean"] < 90
