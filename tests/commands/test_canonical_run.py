"""camera=canonical from training to exports: metres of any camera."""

import json

import cv2
import numpy as np
import pytest
import torch

from depth_lightning import camera
from depth_lightning.commands.calibrate import fit
from depth_lightning.commands.evaluate import evaluate
from depth_lightning.commands.export import export
from depth_lightning.commands.predict import predict
from depth_lightning.commands.train import train
from depth_lightning.data.canonical import Canonical
from depth_lightning.data.transforms import EvaluationTransform, TrainTransform
from depth_lightning.inference import load
from depth_lightning.inference.cameras import CameraOptions
from depth_lightning.models import normalize
from depth_lightning.runs import objects
from depth_lightning.runs.options import check
from depth_lightning.sample import DepthKind, DepthSample
from depth_lightning.settings import SettingError

FOCAL_PX = 45.0


@pytest.fixture(scope="module")
def run(small, compose_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("canonical")
    train(compose_config("train", [*small, "camera=canonical", f"camera.focal_px={FOCAL_PX}"], folder))
    return folder


def sample(kind=DepthKind.METRES, intrinsics=(100, 100, 39.5, 29.5)):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), np.uint8)
    target = rng.uniform(1, 5, (60, 80)).astype(np.float32)
    return DepthSample(image, target, target > 1.5, kind, "a", intrinsics=np.float32(intrinsics))


def test_targets_are_those_of_the_canonical_camera():
    """depth · f_c / f, with f after the resize: the image becomes 84/60 times as large."""
    plain = TrainTransform(84, [56, 56])(sample(), 3)
    scaled = TrainTransform(84, [56, 56], canonical=Canonical(300))(sample(), 3)
    focal = 100 * 84 / 60
    np.testing.assert_allclose(scaled.target, plain.target * 300 / focal, rtol=1e-5)
    np.testing.assert_array_equal(scaled.mask, plain.mask)
    np.testing.assert_array_equal(scaled.image, plain.image)
    kept = EvaluationTransform(84, canonical=Canonical(300))(sample())
    np.testing.assert_array_equal(kept.target, sample().target)  # predictions are multiplied instead


@pytest.mark.parametrize("kind", [DepthKind.UP_TO_SCALE, DepthKind.DISPARITY])
def test_truth_without_metres_needs_no_camera(kind):
    other = sample(kind, camera.UNKNOWN)
    after = TrainTransform(84, canonical=Canonical(300))(other, 3)
    np.testing.assert_array_equal(after.target, TrainTransform(84)(other, 3).target)


def test_an_unknown_camera_is_an_error_or_the_declared_one():
    unknown = sample(intrinsics=camera.UNKNOWN)
    for transform in (
        EvaluationTransform(84, canonical=Canonical(300)),
        lambda s: TrainTransform(84, canonical=Canonical(300))(s, 0),
    ):
        with pytest.raises(
            ValueError, match=r"^a: camera=canonical needs the camera of every .* camera\.default_fov_deg="
        ):
            transform(unknown)
    declared = EvaluationTransform(84, canonical=Canonical(300, default_fov_deg=90))(unknown)
    assert declared.intrinsics[0] == pytest.approx(40 * 84 / 60)


def test_the_run_predicts_in_proportion_to_the_focal_length(run):
    model = load(run / "checkpoints/best.ckpt", device="cpu")
    assert model.network.focal_px == FOCAL_PX
    image = sample().image
    whole = model.predict(image, CameraOptions(intrinsics=(100, 100, 39.5, 29.5)))
    half = model.predict(image, CameraOptions(intrinsics=(50, 50, 39.5, 29.5)))
    np.testing.assert_allclose(half, whole / 2, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^This network was trained with camera=canonical .* type camera\.fov_deg="):
        model.predict(image)


def test_evaluation_multiplies_back(run, small, compose_config, tmp_path):
    """The scores are those of predictions through `load`, image by image."""
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", "panels=0", "breakdowns=false", "trainer=cpu"]
    result = evaluate(compose_config("evaluate", typed, tmp_path), typed)
    model = load(run / "checkpoints/best.ckpt", device="cpu")
    cfg = compose_config("train", small, tmp_path)
    errors = []
    data = objects.dataset_of(cfg.data)(split="val")
    for index in range(len(data)):
        one = data[index]
        depth_m = model.predict(one.image, CameraOptions(intrinsics=one.intrinsics.tolist()))[one.mask]
        errors.append(np.abs(depth_m - one.target[one.mask]) / one.target[one.mask])
    assert result.metrics["abs_rel"] == pytest.approx(np.mean([e.mean() for e in errors]), rel=1e-4)
    recorded = json.loads((tmp_path / "metrics.json").read_text())
    assert recorded["images"] == len(data)


def test_a_command_that_types_another_focal_length_is_refused(run, compose_config, tmp_path):
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", "camera.focal_px=90"]
    with pytest.raises(SettingError, match=r"^camera\.focal_px belongs to the checkpoint's network, 45\.0; found 90"):
        evaluate(compose_config("evaluate", typed, tmp_path), typed)


def test_predict_uses_the_camera_that_is_typed(run, compose_config, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), sample().image)
    depths = []
    for fov_deg in (60, 90):
        typed = [f"checkpoint={run}/checkpoints/best.ckpt", f"input={tmp_path}/a.png", "save=[npy]", "device=cpu"]
        typed += [f"output={tmp_path}/{fov_deg}", f"camera.fov_deg={fov_deg}"]
        assert not predict(compose_config("predict", typed, tmp_path), typed).failures
        depths.append(np.load(tmp_path / f"{fov_deg}/a_depth.npy"))
        recorded = json.loads((tmp_path / f"{fov_deg}/predict.json").read_text())["cameras"]["a"]
        assert recorded["source"] == "camera.fov_deg"
        assert recorded["intrinsics"][0] == pytest.approx(camera.focal_from_fov(fov_deg, 80))
    ratio = np.tan(np.radians(45)) / np.tan(np.radians(30))
    np.testing.assert_allclose(depths[0], depths[1] * ratio, rtol=1e-5)
    typed = [*typed[:-2], f"output={tmp_path}/none"]
    (failure,) = predict(compose_config("predict", typed, tmp_path), typed).failures
    assert str(failure.reason).startswith("This network was trained with camera=canonical and needs the camera")
    assert json.loads((tmp_path / "none/predict.json").read_text())["cameras"]["a"] == {
        "source": "unknown",
        "intrinsics": None,
    }


@pytest.mark.parametrize("layout", ["official", "safetensors", "pt2", "onnx"])
def test_exports(layout, run, small, compose_config, tmp_path):
    if layout == "onnx":
        pytest.importorskip("onnxscript")
        onnxruntime = pytest.importorskip("onnxruntime")
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", f"output={tmp_path}/out", f"layout={layout}"]
    typed += [small[1], "score_images=2"] if layout in ("pt2", "onnx") else []
    report = export(compose_config("export", typed, tmp_path), typed)
    card = (report.folder / "README.md").read_text()
    assert f"f / {FOCAL_PX:g}, where f is the camera's focal length in pixels of the network's input" in card
    model = load(run / "checkpoints/best.ckpt", device="cpu")
    image = torch.rand(2, 3, 42, 56)
    focal_px = torch.tensor([30.0, 90.0])
    with torch.no_grad():
        expected = (model.network(normalize(image)) * (focal_px / FOCAL_PX)[:, None, None]).numpy()
    if layout == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx")
        depth_m = session.run(None, {"image": image.numpy(), "focal_px": focal_px.numpy()})[0]
    elif layout == "pt2":
        depth_m = torch.export.load(tmp_path / "out/model.pt2").module()(image, focal_px).numpy()
    else:
        assert "whoever runs it multiplies" in card
        other = load(tmp_path / f"out/model.{'pth' if layout == 'official' else layout}", device="cpu")
        options = CameraOptions(fov_deg=60)
        np.testing.assert_array_equal(other.predict(sample().image, options), model.predict(sample().image, options))
        return
    np.testing.assert_allclose(depth_m, expected, rtol=1e-4, atol=1e-4)
    assert "the input focal_px" in card
    assert report.scores.export["abs_rel"] == pytest.approx(report.scores.network["abs_rel"], abs=1e-4)


def test_calibrate_fits_one_factor_for_every_lens(run, compose_config, tmp_path):
    """Two lenses, and depth that is 1.3 times what the network predicts with each."""
    model = load(run / "checkpoints/best.ckpt", device="cpu")
    rng = np.random.default_rng(0)
    rows = ["image,depth,fx,fy,cx,cy"]
    for index in range(12):
        intrinsics = (60 if index % 2 else 110,) * 2 + (39.5, 29.5)
        image = rng.integers(0, 256, (60, 80, 3), np.uint8)
        truth = 1.3 * model.predict(image, CameraOptions(intrinsics=intrinsics)) * rng.lognormal(0, 0.05, (60, 80))
        cv2.imwrite(str(tmp_path / f"{index:02}.png"), image[..., ::-1])
        np.save(tmp_path / f"{index:02}.npy", truth.astype(np.float32))
        rows.append(f"{index:02}.png,{index:02}.npy,{','.join(map(str, intrinsics))}")
    (tmp_path / "my.csv").write_text("\n".join(rows))
    typed = [f"checkpoint={run}/checkpoints/best.ckpt", "data=pairs", f"data.manifest={tmp_path}/my.csv", "split=all"]
    typed += ["data.num_workers=0", "protocol.max_depth=100", "device=cpu", f"output={tmp_path}/calibrated.ckpt"]
    found = fit(compose_config("calibrate", typed, tmp_path), typed)
    assert found.kind == "factor" and found.fit[0] == pytest.approx(1.3, rel=0.01) and not found.apart
    calibrated = load(tmp_path / "calibrated.ckpt", device="cpu")
    assert calibrated.network.focal_px == FOCAL_PX
    for fov_deg in (40, 80):
        options = CameraOptions(fov_deg=fov_deg)
        after, before = (each.predict(sample().image, options) for each in (calibrated, model))
        np.testing.assert_allclose(after, found.fit[0] * before, rtol=1e-5)


def test_sparse_truth_keeps_its_points():
    mask = np.zeros((60, 80), bool)
    mask[::7, ::7] = True
    sparse = sample()._replace(target=np.where(mask, 2, 0).astype(np.float32), mask=mask)
    plain, scaled = (TrainTransform(84, canonical=each)(sparse, 3) for each in (None, Canonical(300)))
    np.testing.assert_array_equal(scaled.mask, plain.mask)
    assert scaled.target[scaled.mask] == pytest.approx(2 * 300 / 140)
    assert not scaled.target[~scaled.mask].any()


def test_a_mixture_of_two_lenses_is_trained_at_one_focal_length(compose_config, tmp_path):
    """Of each part, the target is its depth times the ratio of the focal lengths."""
    wide, narrow = "data.parts.wide.fov_deg=[80,80]", "data.parts.narrow.fov_deg=[40,40]"
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/two.yaml").write_text(
        "defaults: [mixture_base, /data@parts.wide: rooms, /data@parts.narrow: rooms]\nsize: 42\ncrop: null\n"
    )
    typed = [f"hydra.searchpath=[file://{tmp_path}/conf]", "data=two", "camera=canonical", "camera.focal_px=45"]
    for part in ("wide", "narrow"):
        typed += [f"data.parts.{part}.{key}" for key in (f"root={tmp_path}/{part}", "train_images=4", "val_images=1")]
    cfg = compose_config("train", [*typed, wide, narrow, "augmentation=none", "model=tiny"], tmp_path)
    data = objects.build_data(cfg)
    for index in (0, 5):
        one, on_disk = data.train_data[index], data.train_data.dataset.source[index]
        angle = 80 if one.id.startswith("wide/") else 40
        focal = 28 / np.tan(np.radians(angle / 2))  # of 56 pixels
        assert one.image.shape == (42, 56, 3)
        assert one.intrinsics[0] == pytest.approx(focal, rel=1e-5)
        assert one.target[one.mask].mean() == pytest.approx(on_disk.target[on_disk.mask].mean() * 45 / focal, rel=0.02)


def test_relative_networks_are_left_alone(compose_config, tmp_path):
    cfg = compose_config(
        "train", ["camera=canonical", "camera.focal_px=300", "model=tiny", "model.output=relative"], tmp_path
    )
    assert objects.canonical(cfg) is None
    assert objects.build_network(cfg.model).focal_px is None


def test_the_focal_length_has_to_be_typed(compose_config, tmp_path):
    cfg = compose_config("train", ["camera=canonical"], tmp_path)
    check(cfg, "train")
    with pytest.raises(SettingError, match=r"^camera\.focal_px is missing, which camera=canonical needs\. Type camera"):
        objects.build_data(cfg)
    cfg = compose_config("train", ["camera.focal_px=300"], tmp_path)
    with pytest.raises(SettingError, match=r"^camera\.focal_px is for camera=canonical, found 300 with camera=none\."):
        objects.build_data(cfg)
