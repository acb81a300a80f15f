import numpy as np
import pytest
import torch

from depth_lightning.inference.export.comparison import compare, example_images, network_runner
from depth_lightning.inference.export.graph import export_program, in_batches
from depth_lightning.inference.export.onnx import onnx_runner, save_onnx
from depth_lightning.models import DepthAnythingV2, normalize, official_state_dict
from depth_lightning.settings import SettingError

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def path(program, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save_onnx(program, path, "depth", {"kind": "metric", "max_depth": "10.0"})
    return path


def test_onnxruntime_gives_what_the_network_gives_at_every_size(path, narrow):
    sizes = [(84, 84), (84, 112), (112, 84), (42, 154)]
    for difference in compare(onnx_runner(path), network_runner(narrow), sizes):
        assert difference.largest <= 1e-4


def test_any_user_of_onnx_finds_what_it_needs(path, narrow):
    session = onnxruntime.InferenceSession(path)
    assert session.get_modelmeta().custom_metadata_map == {"kind": "metric", "max_depth": "10.0"}
    (given,), (gives,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape[1]) == ("image", "tensor(float)", 3)
    assert gives.name == "depth" and isinstance(given.shape[0], str)
    image = example_images(42, 56, count=3)
    (depth,) = session.run(None, {"image": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(depth, narrow(normalize(image)).numpy(), atol=1e-3)
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


def test_a_fixed_size_in_half_precision(path, narrow, tmp_path):
    half = tmp_path / "half.onnx"
    save_onnx(export_program(narrow, (84, 112), "float16"), half, "depth", {})
    assert {parameter.dtype for parameter in narrow.parameters()} == {torch.float32}
    assert half.stat().st_size < 0.8 * path.stat().st_size
    (difference,) = compare(onnx_runner(half), network_runner(narrow), [(84, 112)])
    assert 0 < difference.mean <= 0.002 and difference.largest <= 0.05


@pytest.mark.parametrize("opset", [17, 19, 21])
def test_a_fixed_shape_and_a_chosen_opset(opset, narrow, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "fixed.onnx"
    save_onnx(export_program(narrow, (84, 112), batch_size=1), path, "depth", {}, opset)
    model = onnx.load(path)
    assert [each.version for each in model.opset_import if each.domain == ""] == [opset]
    for given in (*model.graph.input, *model.graph.output):
        shape = [side.dim_value for side in given.type.tensor_type.shape.dim]  # 0 where it is free
        assert shape == ([1, 3, 84, 112] if given.name == "image" else [1, 84, 112])
    image = example_images(84, 112, count=1)
    (depth,) = onnxruntime.InferenceSession(path).run(None, {"image": image.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(depth, narrow(normalize(image)).numpy(), rtol=1e-4, atol=1e-4)
    onnx.checker.check_model(model, full_check=True)


def test_any_number_of_images_goes_through_a_fixed_batch(narrow, tmp_path):
    path = tmp_path / "two.onnx"
    save_onnx(export_program(narrow, (84, 84), batch_size=2), path, "depth", {})
    images = example_images(84, 84, count=5)
    with torch.no_grad():
        expected = narrow(normalize(images)).numpy()
    np.testing.assert_allclose(in_batches(onnx_runner(path), 2)(images).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_an_opset_that_the_exporter_cannot_write(program, tmp_path):
    with pytest.raises(
        SettingError, match=r"^opset is one that the installed exporter can write; for 99 it wrote 18\.$"
    ):
        save_onnx(program, tmp_path / "new.onnx", "depth", {}, opset=99)
    assert not (tmp_path / "new.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision, limit", [("float32", 1e-3), ("float16", 0.02)])
def test_vits(precision, limit, golden_weights, tmp_path):
    network = DepthAnythingV2("vits").eval()
    with torch.no_grad():
        for key, tensor in official_state_dict(network).items():
            tensor.copy_(torch.from_numpy(golden_weights.parameter(key, tuple(tensor.shape))))
    save_onnx(export_program(network, precision=precision), tmp_path / "vits.onnx", "depth", {})
    sizes = [(518, 518), (518, 686), (686, 518)]
    for difference in compare(onnx_runner(tmp_path / "vits.onnx"), network_runner(network), sizes):
        assert difference.largest <= limit
