"""calibrate, on images whose truth is the network's own prediction with a known error."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from depth_lightning.commands.calibrate import fit
from depth_lightning.commands.export import export
from depth_lightning.data.distances import MeasuredDistances
from depth_lightning.data.files import read_image
from depth_lightning.data.rooms import render_room
from depth_lightning.inference import load
from depth_lightning.models import DepthAnythingV2, normalize, save_weights

SIZE = (60, 80)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "rgb").mkdir()
    for index in range(20):
        cv2.imwrite(str(folder / f"rgb/{index:02}.png"), render_room([7, index], *SIZE)[0][:, :, ::-1])
    return folder


@pytest.fixture(scope="module")
def metres(images, trained):
    """What the trained network predicts, by image."""
    predictor = load(trained[0] / "checkpoints/best.ckpt", device="cpu")
    return {path.name: predictor.predict(path) for path in sorted((images / "rgb").iterdir())}


def spoilt(metres, factor, seed=0, of_pixel=0.05, outliers=0.0):
    """Truth that is `factor` times the prediction, with noise; outliers are 3 times as far."""
    rng = np.random.default_rng(seed)
    return {
        name: (depth * factor * rng.lognormal(0, of_pixel, SIZE) * np.where(rng.random(SIZE) < outliers, 3, 1))
        for name, depth in metres.items()
    }


def calibrated(network, images, truth, folder, compose_config, *more):
    for name, depth in truth.items():
        (folder / "depth").mkdir(parents=True, exist_ok=True)
        np.save(folder / "depth" / name.replace("png", "npy"), depth.astype(np.float32))
    rows = [f"{images}/rgb/{name},{folder}/depth/{name.replace('png', 'npy')},val" for name in truth]
    (folder / "my.csv").write_text("\n".join(["image,depth,split", *rows]))
    data = ["data=pairs", f"data.manifest={folder}/my.csv", "data.num_workers=0", "data.intrinsics=[40,40,39.5,29.5]"]
    typed = [*network, *data, "protocol.max_depth=100", "device=cpu", f"output={folder}/calibrated.ckpt", *more]
    return fit(compose_config("calibrate", typed, folder), typed)


@pytest.fixture(scope="module")
def planted(trained, images, metres, compose_config, tmp_path_factory):
    """The folder of a calibration where depth is 1.3 times the prediction, and a tenth of the truth is wrong."""
    folder = tmp_path_factory.mktemp("planted")
    truth = spoilt(metres, 1.3, outliers=0.1)
    calibrated([f"checkpoint={trained[0]}/checkpoints/best.ckpt"], images, truth, folder, compose_config)
    return folder


def test_a_planted_factor_is_recovered_in_spite_of_outliers(planted, trained, images, metres):
    record = json.loads((planted / "calibration.json").read_text())
    assert record["kind"] == "factor" and record["factor"] == pytest.approx(1.3, rel=0.02)
    assert record["interval"][0] < record["factor"] < record["interval"][1] and record["images"] == 20
    assert record["after"]["log_error"] < record["before"]["log_error"]
    predictor = load(planted / "calibrated.ckpt", device="cpu")
    for name, depth in metres.items():
        predicted = predictor.predict(images / "rgb" / name)
        np.testing.assert_allclose(predicted, record["factor"] * depth, rtol=1e-5)
    config = torch.load(planted / "calibrated.ckpt", weights_only=True)["config"]
    assert config["calibration"]["factor"] == record["factor"] and "images" not in config["calibration"]["data"]
    assert config["protocol"]["max_depth"] == 10  # the range of the numbers before
    assert config["model"]["max_depth"] == pytest.approx(10 * record["factor"])


def test_nothing_is_overwritten(planted, trained, images, metres, compose_config):
    before, truth = (planted / "calibrated.ckpt").read_bytes(), spoilt(metres, 1.3, outliers=0.1)
    with pytest.raises(FileExistsError, match=r"^output=.*calibrated\.ckpt exists; remove it"):
        calibrated([f"checkpoint={trained[0]}/checkpoints/best.ckpt"], images, truth, planted, compose_config)
    assert (planted / "calibrated.ckpt").read_bytes() == before


def test_the_network_is_kept_where_nothing_is_wrong(trained, images, metres, compose_config, tmp_path):
    network = [f"checkpoint={trained[0]}/checkpoints/best.ckpt"]
    found = calibrated(network, images, spoilt(metres, 1.0, seed=1), tmp_path, compose_config)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert found.kind == record["kind"] == "none" and record["factor"] == 1 and record["after"] == record["before"]
    predictor, (name, depth) = load(tmp_path / "calibrated.ckpt", device="cpu"), next(iter(metres.items()))
    np.testing.assert_array_equal(predictor.predict(images / "rgb" / name), depth)


def test_images_that_the_split_leaves_out_are_counted(
    trained, images, metres, compose_config, tmp_path, caplog, capsys
):
    for name, depth in spoilt(metres, 1.3).items():
        np.save(tmp_path / name.replace("png", "npy"), depth.astype(np.float32))
    rows = [f"{images}/rgb/{name},{name.replace('png', 'npy')}" for name in metres]
    (tmp_path / "my.csv").write_text("\n".join(["image,depth", *rows]))
    typed = [f"checkpoint={trained[0]}/checkpoints/best.ckpt", "data=pairs", f"data.manifest={tmp_path}/my.csv"]
    typed += ["data.num_workers=0", "protocol.max_depth=100", "device=cpu"]
    found = fit(compose_config("calibrate", typed, tmp_path), typed)
    assert (
        "split=val uses 2 of 20 images. Type split=all to use every image, if the network was not trained on them."
        in caplog.messages
    )
    shown = capsys.readouterr().out
    assert f"Depth times {found.fit[0]:.4f}.\nFewer than 5 images do not show how much images differ, so " in shown
    assert json.loads((tmp_path / "calibration.json").read_text())["interval"] == [None, None]


def test_outliers_are_named(trained, images, metres, compose_config, tmp_path, capsys):
    truth = spoilt(metres, 1.3)
    truth["07.png"] = 5 * truth["07.png"]
    found = calibrated([f"checkpoint={trained[0]}/checkpoints/best.ckpt"], images, truth, tmp_path, compose_config)
    assert [Path(name).name for name in found.outliers] == ["07.png"]
    shown = capsys.readouterr().out
    assert f"\n1 outlier was left out: {found.outliers[0]}.\n" in shown
    assert "each with a fit that has not seen it; 20 images, up to 512 pixels of each.\n" in shown
    assert json.loads((tmp_path / "calibration.json").read_text())["outliers"] == [*found.outliers]


def taped(metres, images, table, factor):
    """30 measured points, a tenth of them wrong; returns how many."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(30):
        name = sorted(metres)[number % 15]
        x, y = rng.integers(80), rng.integers(60)
        wrong = 3 if number % 10 == 0 else 1
        rows.append(f"{images}/rgb/{name},{x},{y},{metres[name][y, x] * factor * rng.lognormal(0, 0.03) * wrong}")
    table.write_text("\n".join(["image,x,y,depth_m", *rows]))


def test_taped_distances_are_enough(trained, images, metres, compose_config, tmp_path):
    taped(metres, images, tmp_path / "distances.csv", 1.3)
    typed = [f"checkpoint={trained[0]}/checkpoints/best.ckpt", f"points={tmp_path}/distances.csv", "device=cpu"]
    typed += ["protocol.max_depth=100", "camera.fov_deg=90"]
    found = fit(compose_config("calibrate", typed, tmp_path), typed)
    assert found.kind == "factor" and found.fit[0] == pytest.approx(1.3, rel=0.02)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert record["data"] == f"{tmp_path}/distances.csv" and record["images"] == 15
    assert record["fov_deg"] == pytest.approx([90, 90], abs=0.2)


@pytest.mark.parametrize("layout", ["official", pytest.param("onnx", marks=pytest.mark.slow)])
def test_exports_carry_the_factor(layout, planted, compose_config, tmp_path):
    if layout == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    report = exported(planted, tmp_path / "out", compose_config, layout)
    factor = json.loads((planted / "calibration.json").read_text())["factor"]
    card = (report.folder / "README.md").read_text()
    assert f"| calibration | depth times {factor:.4f}, on 20 images of DepthPairs my.csv |" in card
    if layout == "official":
        image = render_room([1, 1], *SIZE)[0]
        one, other = (load(path, device="cpu") for path in (planted / "calibrated.ckpt", report.folder / "model.pth"))
        np.testing.assert_allclose(other.predict(image), one.predict(image), rtol=1e-6)


def exported(folder, output, compose_config, layout):
    typed = [f"checkpoint={folder}/calibrated.ckpt", f"output={output}", f"layout={layout}"]
    return export(compose_config("export", typed, output.parent), typed)


@pytest.fixture(scope="module")
def rig(images, compose_config, tmp_path_factory):
    """The folder of a calibration of released relative weights, and truth that is 1 / (0.4 · disparity + 0.1)."""
    folder = tmp_path_factory.mktemp("rig")
    torch.manual_seed(0)
    network = DepthAnythingV2("tiny", output="relative").eval()
    with torch.no_grad():  # a random network's disparity hardly varies
        network.head.get_parameter("scratch.output_conv2.2.weight").mul_(20)
    save_weights(network, folder / "relative.pth", metadata={"size": 42})
    predictor = load(folder / "relative.pth", device="cpu")
    paths = sorted((images / "rgb").iterdir())
    truth = {path.name: 1 / (0.4 * predictor.predict(path) + 0.1) for path in paths}
    words = ["model=tiny", "model.output=relative", "model.max_depth=50", f"model.weights={folder}/relative.pth"]
    calibrated(words, images, spoilt(truth, 1.0, outliers=0.1), folder, compose_config)
    return folder, truth


def test_a_relative_network_predicts_metres_from_then_on(rig, images):
    folder, truth = rig
    record = json.loads((folder / "calibration.json").read_text())
    assert record["kind"] == "affine_disparity" and record["factor"] is None
    assert (record["scale"], record["shift"]) == pytest.approx((0.4, 0.1), rel=0.05)
    predictor = load(folder / "calibrated.ckpt", device="cpu")
    assert predictor.metric
    errors = [np.abs(predictor.predict(images / "rgb" / name) / depth - 1).mean() for name, depth in truth.items()]
    assert np.mean(errors) < 0.02


@pytest.mark.slow
def test_its_exports_carry_scale_and_shift_and_the_card_names_the_rig(rig, compose_config, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder, _ = rig
    graph = exported(folder, tmp_path / "onnx", compose_config, "onnx")
    assert all(difference.largest <= 1e-3 for difference in graph.differences)
    official = exported(folder, tmp_path / "official", compose_config, "official")
    same = load(official.folder / "model.pth", device="cpu").network
    network = load(folder / "calibrated.ckpt", device="cpu").network
    image = normalize(torch.rand(1, 3, 42, 56))
    with torch.no_grad():
        torch.testing.assert_close(same(image), network(image))
    card = (official.folder / "README.md").read_text()
    camera = "DepthPairs my.csv (field of view across the longer side: 90°)"
    assert f"Metres are those of the camera of {camera}, with which it was calibrated, and of no other." in card
    assert "reads 1 / depth" in card


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,x,y,depth_m\na.png,1,2,0", r"line 2: expected depth_m above 0, found 0\.$"),
        ("image,x,y,depth_m\na.png,1,2,1\na.png,1.5,2,1", r"line 3: pixel x=1, y=2 of a\.png is measured twice\.$"),
        ("image,x,y,depth_m\na.png,1,b,1", r"line 2: expected a number for y, found 'b'\.$"),
        ("image,x,y\na.png,1,2", r"line 2: expected the columns image, x, y, depth_m, found nothing for depth_m\.$"),
        ("image,x,y,depth_m\n", r"expected rows of image, x, y, depth_m, found none\.$"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(text, message, tmp_path):
    (tmp_path / "distances.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        MeasuredDistances(tmp_path / "distances.csv", read_image)


def test_a_point_lies_where_the_table_says(images, tmp_path):
    name = f"{images}/rgb/00.png"
    (tmp_path / "distances.csv").write_text(f"image;x;y;depth_m\n{name};79;0;2.5\n{name};3.9;59;1.5\n")
    sample = MeasuredDistances(tmp_path / "distances.csv", read_image)[0]
    assert np.argwhere(sample.mask).tolist() == [[0, 79], [59, 3]]
    assert (sample.target[0, 79], sample.target[59, 3]) == (2.5, 1.5)
    (tmp_path / "distances.csv").write_text(f"image,x,y,depth_m\n{name},80,0,2.5\n")
    with pytest.raises(ValueError, match=r"80×60 \(w×h\) pixels as it is shown, found x=80, y=0\.$"):
        MeasuredDistances(tmp_path / "distances.csv", read_image)[0]
