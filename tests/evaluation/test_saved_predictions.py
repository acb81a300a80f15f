"""Depth maps in files are scored as the network that made them would be."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.inference import load
from depth_lightning.runs import objects


@pytest.fixture(scope="module")
def predicted(trained, small, compose_config, tmp_path_factory):
    """A folder with the network's depth maps as .npy, its metrics, and the overrides of its data."""
    run, _ = trained
    root = tmp_path_factory.mktemp("predictions")
    checkpoint = run / "checkpoints" / "best.ckpt"
    typed = [word for word in small if word.startswith("data.")]
    on_rooms = ["data=rooms", *typed, "trainer=cpu", "panels=0", "breakdowns=false"]
    cfg = compose_config("evaluate", on_rooms)
    samples, network = objects.build_data(cfg).val_data.dataset, load(checkpoint, device="cpu")
    for index in range(len(samples)):
        file = (root / samples[index].id).with_suffix(".npy")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, network.predict(samples[index].image))
    words = [f"checkpoint={checkpoint}", "panels=0", "breakdowns=false"]
    metrics = evaluate(compose_config("evaluate", words, root / "network"), words).metrics
    return root, metrics, on_rooms


@pytest.fixture
def folder(predicted, tmp_path):
    """A copy of the depth maps, to be changed."""
    return Path(shutil.copytree(predicted[0] / "val", tmp_path / "copy" / "val")).parent


@pytest.fixture
def scores(predicted, compose_config, tmp_path):
    """scores(folder, *typed): the metrics of a folder's depth maps."""

    def score(folder, *typed):
        words = [f"predictions={folder}", *predicted[2], *typed]
        return evaluate(compose_config("evaluate", words, tmp_path / "run"), words).metrics

    return score


def files(folder):
    return sorted(folder.rglob("*.npy"))


def test_scores_are_the_networks(predicted, folder, scores, tmp_path):
    assert scores(folder, "report=true", "panels=1", "explain=true") == pytest.approx(predicted[1], rel=1e-6)
    recorded = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert recorded["predictions"] == str(folder) and recorded["checkpoint"] is None
    assert (tmp_path / "run" / "report.html").is_file() and (tmp_path / "run" / "panels.png").is_file()


def test_16_bit_png_with_a_scale(predicted, folder, scores):
    for file in files(folder):
        cv2.imwrite(str(file.with_name(f"{file.stem}_depth.png")), np.rint(5000 * np.load(file)).astype(np.uint16))
        file.unlink()
    assert scores(folder, "predictions_scale=5000") == pytest.approx(predicted[1], rel=1e-3)
    recorded = {"network": {"output": "metric"}, "png": {"values_per_metre": 5000}}
    (folder / "predict.json").write_text(json.dumps(recorded))
    assert scores(folder) == pytest.approx(predicted[1], rel=1e-3)


def test_disparity_and_depth_up_to_scale(predicted, folder, scores):
    with pytest.raises(ValueError, match=r"Predictions that are up_to_scale have no metres.*protocol=median_scaled\.$"):
        scores(folder, "predictions_kind=up_to_scale")
    before = scores(folder, "predictions_kind=up_to_scale", "protocol=median_scaled")
    for file in files(folder):
        np.save(file, 7 * np.load(file))
    again = scores(folder, "predictions_kind=up_to_scale", "protocol=median_scaled")
    assert again == pytest.approx(before, rel=1e-5)
    for file in files(folder):
        np.save(file, 3 / np.load(file) + 1)
    assert scores(folder, "predictions_kind=disparity", "protocol=affine_disparity")["abs_rel"] < 1


def test_missing_and_superfluous_files_are_named(predicted, folder, scores, caplog):
    first, second, *_ = files(folder)
    np.save(folder / "other.npy", np.ones((3, 4)))
    with caplog.at_level("INFO"):
        scores(folder)
    assert f"1 file of no image of this split: {folder / 'other.npy'}." in caplog.text
    first.unlink(), second.unlink()
    with pytest.raises(ValueError, match=r"2 of 5 images have no prediction: .*val_00000/00000\.h5, .*val_00001/00000"):
        scores(folder)


def test_what_cannot_be_matched_or_scored_is_refused(predicted, folder, scores):
    with pytest.raises(FileNotFoundError, match=r"^predictions=.*nowhere: there is no such folder\.$"):
        scores(folder / "nowhere")
    with pytest.raises(ValueError, match=r"^predictions are scored in the place of a network: leave out checkpoint"):
        scores(folder, "checkpoint=a.ckpt")
    with pytest.raises(ValueError, match=r"^predictions_scale is a number above 0, found -1\."):
        scores(folder, "predictions_scale=-1")
    first = files(folder)[0]
    whole = np.load(first)
    np.save(first, np.where(whole == whole.min(), np.nan, whole))
    with pytest.raises(ValueError, match=r"00000\.npy: expected a finite prediction above 0 for every pixel"):
        scores(folder)
    np.save(first, whole[:, :50])
    with pytest.raises(ValueError, match=r"00000\.npy: expected the aspect of .*, 84×112 \(h×w\), found \(84, 50\)\."):
        scores(folder)


def test_one_file_does_not_serve_two_images(predicted, folder, scores, tmp_path):
    shutil.copy(files(folder)[0], tmp_path / "00000.npy")  # every room's image has this name
    (tmp_path / "flat").mkdir()
    shutil.move(tmp_path / "00000.npy", tmp_path / "flat" / "00000.npy")
    with pytest.raises(ValueError, match=r"00000\.npy fits .*val_00000.* and .*val_00001.*\. Name predictions like"):
        scores(tmp_path / "flat")
