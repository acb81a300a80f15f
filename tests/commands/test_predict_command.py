import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depth_lightning.commands.predict import predict
from depth_lightning.models import DepthAnythingV2, save_weights

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a run's checkpoint, weights, photos of two sizes, and a clip."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny", "metric", max_depth=10.0)
    model = {"_target_": "depth_lightning.models.DepthAnythingV2", "encoder": "tiny", "output": "metric"}
    model |= {"max_depth": 10.0, "freeze_encoder": False, "weights": None, "init": "encoder"}
    config = {"model": model, "data": {"size": 42}, "protocol": {}, "metrics": {}, "seed": 0}
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"config": config, "state_dict": state}, folder / "best.ckpt")
    save_weights(network, folder / "tiny.pth")
    (folder / "photos").mkdir()
    for name, size in (("a", (48, 64)), ("b", (48, 64)), ("c", (60, 44))):
        cv2.imwrite(str(folder / f"photos/{name}.png"), RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    writer = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for index in range(7):
        writer.write(np.roll(cv2.imread(str(folder / "photos/a.png")), 3 * index, axis=1))
    writer.release()
    return folder


@pytest.fixture
def call(compose_config, files, tmp_path):
    """call(*overrides): predict with the checkpoint, into tmp_path/out."""

    def call_one(*overrides, network=None):
        typed = [*(network or [f"checkpoint={files}/best.ckpt"]), f"output={tmp_path}/out", "device=cpu", *overrides]
        return predict(compose_config("predict", typed, tmp_path), typed)

    return call_one


def test_a_folder_is_predicted_and_a_second_call_resumes(call, files, tmp_path):
    assert call(f"input={files}/photos", "save=[png,npy]").predicted == 3
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"{name}_depth.{suffix}" for name in "abc" for suffix in ("npy", "png")),
        "predict.json",
    ]
    assert np.load(out / "c_depth.npy").shape == (60, 44)
    kept, expected = (out / "a_depth.npy").stat().st_mtime_ns, np.load(out / "b_depth.npy")
    (out / "b_depth.npy").unlink()
    summary = call(f"input={files}/photos", "save=[png,npy]")
    assert (summary.predicted, summary.finished_before) == (1, 2)
    assert (out / "a_depth.npy").stat().st_mtime_ns == kept
    np.testing.assert_allclose(np.load(out / "b_depth.npy"), expected, atol=1e-5)
    assert call(f"input={files}/photos", "save=[png,npy]", "overwrite=true").predicted == 3


def test_weights_give_what_their_checkpoint_gives(call, files, tmp_path):
    call(f"input={files}/photos", "save=npy")
    network = ["model=tiny", f"model.weights={files}/tiny.pth", "data.size=42", "model.max_depth=10"]
    # The same network: the folder made with the one is taken for the other's.
    assert call(f"input={files}/photos/*.png", "save=npy", network=network).finished_before == 3


def test_predictions_of_two_networks_are_not_mixed(call, files):
    call(f"input={files}/photos", "save=npy")
    with pytest.raises(ValueError, match=r"network\.size was 42 and is 56"):
        call(f"input={files}/photos", "save=npy", "data.size=56")
    with pytest.raises(ValueError, match="input was"):
        call(f"input={files}", "save=npy")


def test_a_clip_has_one_scale_and_all_its_frames(call, files, tmp_path):
    assert call(f"input={files}/clip.mp4").predicted == 7
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["clip_depth.mp4", "predict.json"]
    capture = cv2.VideoCapture(str(out / "clip_depth.mp4"))
    bars = []
    while (read := capture.read())[0]:
        bars.append(read[1][54:].astype(int))  # below the picture and its gap
    assert len(bars) == 7 and capture.get(cv2.CAP_PROP_FPS) == 10.0
    assert max(abs(bar - bars[0]).max() for bar in bars) < 60  # the codec's noise
    assert call(f"input={files}/clip.mp4").predicted == 0
    assert call(f"input={files}/clip.mp4", "save=[npy]").predicted == 7
    (out / "clip/000003_depth.npy").unlink()
    summary = call(f"input={files}/clip.mp4", "save=[npy]")
    assert (summary.predicted, summary.finished_before) == (1, 6)
    assert len(list((out / "clip").iterdir())) == 7


@pytest.mark.parametrize(
    "overrides, message",
    [
        ([], "give input="),
        (["input=[a,b]"], r"^input is one path or pattern .* found \['a', 'b'\]"),
        (["input={files}/photos", "camera.fov_deg=180"], r"^camera\.fov_deg is a number above 0 and below 180, found"),
        (["input={files}/photos", "camera.intrinsics=[1]"], r"^camera\.intrinsics is \[fx,fy,cx,cy\] in pixels, found"),
        (["input={files}/photos", "camera.fov_deg=60", "cloud.fov_deg=60"], r"^cloud and camera both say which camera"),
        (["input={files}/photos", "save=[video]"], "needs a video"),
        (["input={files}/photos", "save=[depth]"], r"^save is one of png, npy, .*, found 'depth'"),
        (["input={files}/photos", "batch_size=0"], r"^batch_size is a whole number, 1 or above, found 0\.$"),
        (["input={files}/photos", "overwrite=no"], r"^overwrite is true or false, found 'no'\.$"),
        (
            ["input={files}/photos", "cloud.fov_deg=180"],
            r"^cloud\.fov_deg is a number above 0 and below 180, found 180",
        ),
        (["input={files}/photos", "cloud.intrinsics=[1,2]"], r"^cloud\.intrinsics is \[fx,fy,cx,cy\] in pixels, found"),
        (["input={files}/photos", "data.size=7"], r"^data\.size is a whole number, 14 to 4096, found 7\.$"),
        (["input={files}/photos", "device=cuda:77"], r"^device cuda:77 is not available: "),
        (["input={files}/photos", "+cloud.fov=60"], r"^cloud\.fov is not an option\. Did you mean cloud\.fov_deg\?$"),
        (["input={files}/photos", "+data.depth_scale=5"], r"^data\.depth_scale is not an option\. "),
        (["input={files}/photos", "range=5"], r"^range is \[low,high\], found 5\.$"),
        (["input={files}/photos", "model.max_depth=80"], "png_scale"),
        (["input={files}/none"], "no such image"),
    ],
)
def test_wrong_arguments_are_said_before_anything_is_written(call, files, tmp_path, overrides, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call(*(override.format(files=files) for override in overrides))
    assert not (tmp_path / "out").exists()


def test_a_network_must_be_named(call, files):
    with pytest.raises(ValueError, match="Nothing to predict: give checkpoint="):
        call(f"input={files}/photos", network=["model=tiny"])


def test_the_program_reports_a_broken_image_with_its_exit_status(files, tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/good.png"), np.full((48, 64, 3), 90, np.uint8))
    (tmp_path / "in/torn.png").write_bytes((files / "photos/a.png").read_bytes()[:200])
    command = [sys.executable, "predict.py", f"checkpoint={files}/best.ckpt", f"input={tmp_path}/in", "device=cpu"]
    command += [f"output={tmp_path}/out", f"hydra.run.dir={tmp_path}/run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "torn.png" in result.stdout + result.stderr and "Traceback" not in result.stdout + result.stderr
    assert "1 image predicted" in result.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["good_colour.png", "good_depth.png", "predict.json"]
    assert json.loads((tmp_path / "out/predict.json").read_text())["network"]["encoder"] == "tiny"
