"""Labels that data=pairs reads as they are, complete after a kill, and of one teacher."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depth_lightning.commands.label import label
from depth_lightning.commands.pack import pack
from depth_lightning.data import DepthPairs
from depth_lightning.inference import load
from depth_lightning.models import DepthAnythingV2
from depth_lightning.runs.processes import own_share
from depth_lightning.sample import DepthKind
from depth_lightning.settings import SettingError

ROOT = Path(__file__).resolve().parents[2]


def _checkpoint(path, output="relative", seed=0):
    torch.manual_seed(seed)
    network = DepthAnythingV2("tiny", output, max_depth=10.0)
    torch.nn.init.normal_(network.head.get_parameter("scratch.output_conv2.2.weight"))
    model = {"_target_": "depth_lightning.models.DepthAnythingV2", "encoder": "tiny", "output": output}
    model |= {"max_depth": 10.0, "freeze_encoder": False, "weights": None, "init": "encoder"}
    config = {"model": model, "data": {"size": 42}, "protocol": {}, "metrics": {}, "seed": 0}
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    torch.save({"config": config, "state_dict": state}, path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the checkpoints of two relative teachers and a metric one, and photos in two folders."""
    folder = tmp_path_factory.mktemp("files")
    _checkpoint(folder / "teacher.ckpt")
    _checkpoint(folder / "other.ckpt", seed=1)
    _checkpoint(folder / "metric.ckpt", "metric")
    rng = np.random.default_rng(0)
    for name, size in (("one/a", (48, 64)), ("one/b", (48, 64)), ("two/c", (60, 44)), ("two/d", (48, 64))):
        path = folder / f"photos/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), size[::-1]))
    return folder


@pytest.fixture
def call(compose_config, files, tmp_path):
    """call(*overrides): label the photos with the teacher, into tmp_path/labels."""

    def call_one(*overrides, teacher="teacher", source=f"{files}/photos"):
        typed = [f"checkpoint={files}/{teacher}.ckpt", f"input={source}", f"output={tmp_path}/labels", "device=cpu"]
        return label(compose_config("label", [*typed, *overrides], tmp_path), [*typed, *overrides])

    return call_one


def _read(folder):
    """The labels as data=pairs reads them with no other key than the manifest, by name."""
    pairs = DepthPairs("all", manifest=folder / "manifest.csv")
    samples = {Path(pairs.path(index)).stem: pairs[index] for index in range(len(pairs))}
    assert all(sample.kind == DepthKind.DISPARITY for sample in samples.values())
    return samples


def _predicted(files, name, teacher="teacher"):
    network = load(files / f"{teacher}.ckpt", device="cpu")
    image = network.read(files / f"photos/{name}.png")
    return network.predict(image), network.predict(np.ascontiguousarray(image[:, ::-1]))[:, ::-1]


@pytest.mark.parametrize(("format", "error"), [("npz", 2**-11), ("png", 0.51 / 65534)])
def test_pairs_reads_the_labels_as_they_are(format, error, call, files, tmp_path):
    summary = call(f"format={format}")
    assert (summary.predicted, summary.failures) == (4, [])
    samples = _read(tmp_path / "labels")
    assert {name: sample.scene for name, sample in samples.items()} == {"a": "one", "b": "one", "c": "two", "d": "two"}
    for name in ("one/a", "two/c"):
        sample, (expected, _) = samples[Path(name).name], _predicted(files, name)
        assert sample.mask.all() and sample.target.shape == expected.shape and np.ptp(expected) > 0.1
        largest = np.abs(expected).max() if format == "npz" else np.ptp(expected)
        assert np.abs(sample.target - expected).max() <= error * largest + 1e-5
    record = json.loads((tmp_path / "labels/label.json").read_text())
    assert record["teacher"]["weights"] == load(files / "teacher.ckpt").fingerprint()
    assert record["teacher"]["size"] == 42 and record["format"] == format


def test_zero_is_a_disparity_unless_it_is_a_hole(call, files, tmp_path):
    (tmp_path / "sky/one").mkdir(parents=True)
    mask = np.zeros((48, 64), np.uint8)
    mask[:10] = 255
    cv2.imwrite(str(tmp_path / "sky/one/a.png"), mask)
    for format in ("npz", "png"):
        output = tmp_path / format
        call(f"sky={tmp_path}/sky", "max_disagreement=0.05", f"format={format}", f"output={output}")
        sample, (own, mirrored) = _read(output)["a"], _predicted(files, "one/a")
        low, high = np.percentile(own, [2, 98])
        confident = (np.abs(own - mirrored) <= 0.05 * (high - low)) | (mask > 0)
        assert (sample.mask != confident).mean() < 1e-3 and 0.05 < confident.mean() < 0.95
        assert sample.mask[:10].all() and np.abs(sample.target[:10]).max() < 1e-6
        assert (sample.target[10:][sample.mask[10:]] > 0).mean() > 0.5


def test_flips_are_averaged(call, files, tmp_path):
    call("flip_average=true")
    own, mirrored = _predicted(files, "two/c")
    np.testing.assert_allclose(_read(tmp_path / "labels")["c"].target, (own + mirrored) / 2, rtol=2**-10, atol=1e-5)


def test_a_metric_teacher_gives_inverse_depth(call, files, tmp_path):
    call(teacher="metric")
    depth_m, _ = _predicted(files, "one/b", "metric")
    np.testing.assert_allclose(_read(tmp_path / "labels")["b"].target, 1 / depth_m, rtol=2**-10)


def test_labels_of_two_teachers_are_not_mixed(call, files, tmp_path):
    call()
    kept = (tmp_path / "labels/manifest.csv").read_text()
    with pytest.raises(ValueError, match=r"made with other settings: teacher\.weights was '\w{12}' and is '\w{12}'"):
        call(teacher="other")
    with pytest.raises(ValueError, match=r"format was 'npz' and is 'png'"):
        call("format=png")
    assert (tmp_path / "labels/manifest.csv").read_text() == kept


def test_what_fails_is_left_out_and_made_later(call, files, tmp_path):
    (tmp_path / "photos").mkdir()
    whole = (files / "photos/one/a.png").read_bytes()
    (tmp_path / "photos/a.png").write_bytes(whole)
    (tmp_path / "photos/torn.png").write_bytes(whole[:300])
    given = partial(call, source=f"{tmp_path}/photos")
    assert [failure.item.path.name for failure in given().failures] == ["torn.png"]
    assert _read(tmp_path / "labels").keys() == {"a"}
    (tmp_path / "photos/torn.png").write_bytes(whole)
    summary = given()
    assert (summary.predicted, summary.finished_before) == (1, 1)
    assert _read(tmp_path / "labels").keys() == {"a", "torn"}


def test_several_processes_share_the_work(call, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "3")
    done = []
    for rank in (2, 0, 1):
        monkeypatch.setenv("RANK", str(rank))
        done.append(call().predicted)
    assert done == [1, 2, 1] and _read(tmp_path / "labels").keys() == set("abcd")


def test_packed_images_are_saved_beside_their_labels(call, compose_config, files, tmp_path):
    overrides = ["data=rooms", f"data.root={tmp_path}/rooms", "data.train_images=4", "data.val_images=2"]
    pack(compose_config("pack", [*overrides, f"output={tmp_path}/packed"], tmp_path))
    assert call(source=f"{tmp_path}/packed").predicted == 6
    sample = _read(tmp_path / "labels")["000003"]
    own = load(files / "teacher.ckpt").predict(tmp_path / "labels/images/train/000003.png")
    np.testing.assert_allclose(sample.target, own, rtol=2**-10, atol=1e-5)
    (tmp_path / "labels/train/000001.npz").unlink()
    summary = call(source=f"{tmp_path}/packed")
    assert (summary.predicted, summary.finished_before) == (1, 5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input=clip.mp4"], "is a video. Labels are of images"),
        (["format=npy"], r"^format is npz or png, found 'npy'"),
        (["max_disagreement=0"], r"^max_disagreement is a number above 0, found 0\.$"),
        (["sky=nowhere"], r"^sky is a folder of masks"),
        (["flip_average=1"], r"^flip_average is true or false, found 1\.$"),
        (["save=npy"], "save"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(call, tmp_path, overrides, message):
    with pytest.raises(Exception, match=message):
        call(*overrides)
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 2)),
        ({"SLURM_NTASKS": "2"}, (0, 1)),
        ({"SLURM_ARRAY_TASK_ID": "5"}, (2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (5, 8)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SUBMITIT_EXECUTOR": "slurm"}, (0, 1)),
    ],
)
def test_every_process_knows_its_share(environment, expected, monkeypatch):
    array = {"SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "7", "SLURM_ARRAY_TASK_STEP": "2"}
    for name, value in {**array, "SLURM_ARRAY_TASK_COUNT": "4", **environment}.items():
        monkeypatch.setenv(name, value)
    assert own_share() == expected
    if "SLURM_ARRAY_TASK_ID" in environment and "SUBMITIT_EXECUTOR" not in environment:
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
        with pytest.raises(ValueError, match="Number them evenly"):
            own_share()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_ten_times_it_makes_the_same_labels_and_none_twice(files, tmp_path):
    """Every kill comes at a random moment of the work; what was there then is not touched again."""
    rng, moments = np.random.default_rng(1), random.Random(0)
    for number in range(200):
        path = tmp_path / f"photos/{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (320, 240)))

    def start(output):
        command = [sys.executable, "-m", "depth_lightning", "label", f"checkpoint={files}/teacher.ckpt", "device=cpu"]
        # One image at a time: in a batch of other images, the last bit of a prediction may differ.
        command += [f"input={tmp_path}/photos", f"output={output}", f"hydra.run.dir={tmp_path}/run", "batch_size=1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, "data.size=140"], cwd=ROOT, env=environment, start_new_session=True)

    def labels(output):
        return {path.name: path.read_bytes() for path in output.glob("[!.]*.npz")}

    assert start(tmp_path / "never").wait(300) == 0
    expected, killed = labels(tmp_path / "never"), tmp_path / "killed"
    assert len(expected) == 200
    written, kills = dict[str, int](), 0
    while kills < 10:
        before = len(labels(killed))
        process = start(killed)
        while len(labels(killed)) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.1))
        assert process.poll() is None, "the work was done before the tenth kill"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        assert not (killed / "manifest.csv").exists()
        for name, content in labels(killed).items():
            changed = (killed / name).stat().st_mtime_ns
            assert content == expected[name] and written.setdefault(name, changed) == changed
    assert 10 <= len(written) < 200
    assert start(killed).wait(300) == 0
    assert labels(killed) == expected and not list(killed.glob(".partial-*"))
    assert all((killed / name).stat().st_mtime_ns == changed for name, changed in written.items())
    with (killed / "manifest.csv").open(newline="") as file:
        listed = [row["depth"] for row in csv.DictReader(file)]
    assert listed == sorted(expected)


def test_a_teacher_must_be_named(call, compose_config, tmp_path):
    typed = [f"input={tmp_path}", "model=tiny"]
    with pytest.raises(ValueError, match="Nothing to label: give checkpoint="):
        label(compose_config("label", typed, tmp_path), typed)
    with pytest.raises(SettingError, match=r"^batch_size is a whole number"):
        call("batch_size=0")
