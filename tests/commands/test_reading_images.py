"""What a data set settled about its images is in the checkpoint, and prediction reads images in the same way."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.predict import predict
from depth_lightning.commands.train import train
from depth_lightning.inference import load
from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.runs.checkpoint import chosen_network, read_run_checkpoint

LOW, HIGH = 7000, 8600


def frame(seed):
    """(56, 70) in [0, 1], smooth."""
    noise = np.random.default_rng(seed).random((56, 70))
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 1, cv2.NORM_MINMAX)


def counts(seed):
    return (LOW + frame(seed) * (HIGH - LOW)).astype(np.uint16)


@pytest.fixture(scope="module")
def thermal(tmp_path_factory, compose_config):
    """The folder of a run on a thermal camera's images of 14 bits, its overrides, and the folder of the data."""
    root = tmp_path_factory.mktemp("thermal")
    for name in ("rgb", "depth"):
        (root / name).mkdir()
    for number in range(6):
        cv2.imwrite(str(root / f"rgb/{number}.png"), counts(number))
        cv2.imwrite(str(root / f"depth/{number}.png"), (1000 + 2000 * frame(number)).astype(np.uint16))
    overrides = ["model=tiny", "data=pairs", f"data.root={root}", "data.image=rgb/*.png", "data.depth=depth/*.png"]
    overrides += ["data.depth_scale=1000", "data.size=42", "data.crop=[42,42]", "data.batch_size=2", "trainer=cpu"]
    overrides += ["data.num_workers=0", "trainer.max_epochs=1", "report=false", "data.val_share=0.3"]
    run = tmp_path_factory.mktemp("run")
    train(compose_config("train", overrides, run))
    return run, overrides, root


def weights(folder):
    save_weights(DepthAnythingV2("tiny", "metric", 10.0), folder / "tiny.pth")
    return folder / "tiny.pth"


def of_run(run):
    return run / "checkpoints/last.ckpt"


def test_the_range_is_in_the_checkpoint(thermal, compose_config, tmp_path):
    run, _, root = thermal
    low, high = read_run_checkpoint(of_run(run))[0].data.image_range
    assert (low, high) == pytest.approx((LOW, HIGH), abs=30)
    cv2.imwrite(str(root / "rgb/0.png"), counts(0) // 2)  # what other images there are later does not change it
    typed = [f"checkpoint={of_run(run)}", "trainer=cpu", "panels=0"]
    evaluate(compose_config("evaluate", typed, tmp_path), typed)
    cv2.imwrite(str(root / "rgb/0.png"), counts(0))


def test_a_resumed_run_keeps_it(thermal, compose_config):
    run, overrides, root = thermal
    before = list(read_run_checkpoint(of_run(run))[0].data.image_range)
    cv2.imwrite(str(root / "rgb/0.png"), counts(0) // 2)
    cfg = compose_config("train", [*overrides, f"checkpoint={of_run(run)}"], run)
    train(cfg)
    assert list(cfg.data.image_range) == before
    cv2.imwrite(str(root / "rgb/0.png"), counts(0))


@pytest.mark.parametrize("typed", [[], ["data.image_range=[7500,8000]"]])
def test_prediction_reads_images_as_the_run_did(typed, thermal, compose_config, tmp_path):
    run, _, _ = thermal
    low, high = [7500, 8000] if typed else read_run_checkpoint(of_run(run))[0].data.image_range
    (tmp_path / "in").mkdir()
    raw = counts(9) // 2 + 3600  # its own range is another
    cv2.imwrite(str(tmp_path / "in/raw.png"), raw)
    levels = np.clip(np.round((raw - low) / (high - low) * 255), 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "in/levels.png"), levels)
    overrides = [f"checkpoint={of_run(run)}", f"input={tmp_path}/in", f"output={tmp_path}/out", "save=npy", *typed]
    assert predict(compose_config("predict", [*overrides, "device=cpu"], tmp_path), overrides).predicted == 2
    raw_depth, expected = (np.load(tmp_path / f"out/{name}_depth.npy") for name in ("raw", "levels"))
    assert np.array_equal(raw_depth, expected)
    model = load(of_run(run), device="cpu", image_range=[7500, 8000] if typed else None)
    np.testing.assert_allclose(model.predict(tmp_path / "in/raw.png"), expected, atol=1e-5)  # in a batch of one


def test_without_a_range_it_comes_from_the_images_to_predict(compose_config, tmp_path):
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/raw.png"), (frame(0) * 4095).astype(np.uint16))
    cv2.imwrite(str(tmp_path / "in/levels.png"), np.round((frame(0) * 4095).astype(np.uint16) / 4095 * 255))
    overrides = [
        "model=tiny",
        f"model.weights={weights(tmp_path)}",
        f"input={tmp_path}/in",
        f"output={tmp_path}/out",
        "save=npy",
    ]
    overrides += ["data.size=42", "device=cpu"]
    predict(compose_config("predict", overrides, tmp_path), overrides)
    raw, levels = (np.load(tmp_path / f"out/{name}_depth.npy") for name in ("raw", "levels"))
    assert np.array_equal(raw, levels)


@pytest.mark.parametrize("exif, upright", [("auto", True), ("apply", True), ("ignore", False)])
def test_prediction_obeys_exif(exif, upright, compose_config, tmp_path):
    (tmp_path / "in").mkdir()
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(np.zeros((48, 70, 3), np.uint8)).save(tmp_path / "in/a.jpg", exif=tag)
    overrides = ["model=tiny", f"model.weights={weights(tmp_path)}", f"input={tmp_path}/in", "device=cpu"]
    overrides += [f"output={tmp_path}/out", "save=npy", "data.size=42", f"data.exif={exif}"]
    predict(compose_config("predict", overrides, tmp_path), overrides)
    assert np.load(tmp_path / "out/a_depth.npy").shape == ((70, 48) if upright else (48, 70))


def test_a_checkpoint_of_an_earlier_version_reads_all_of_16_bits(thermal, tmp_path):
    run, _, _ = thermal
    content = torch.load(of_run(run), weights_only=False)
    del content["config"]["data"]["image_range"], content["config"]["data"]["exif"]
    torch.save(content, tmp_path / "earlier.ckpt")
    data = read_run_checkpoint(tmp_path / "earlier.ckpt")[0].data
    assert (data.exif, list(data.image_range)) == ("auto", [0, 65535])


@pytest.mark.parametrize("typed, kept", [([], True), (["data.image_range=[0,255]"], False)])
def test_another_data_set_is_read_with_the_range_of_the_run(typed, kept, thermal, compose_config, tmp_path):
    run, _, root = thermal
    overrides = [f"checkpoint={of_run(run)}", "data=pairs", f"data.root={root}", "data.image=rgb/*.png", *typed]
    overrides += ["data.depth=depth/*.png", "data.depth_scale=1000", "data.num_workers=0", "trainer=cpu", "panels=0"]
    data = chosen_network(compose_config("evaluate", overrides, tmp_path), overrides, "evaluate")[0].data
    saved = list(read_run_checkpoint(of_run(run))[0].data.image_range)
    assert list(data.image_range) == (saved if kept else [0, 255])
