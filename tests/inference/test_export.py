import copy
import json

import pytest
import torch

from depth_lightning.inference.export import LAYOUTS, Graph, weights
from depth_lightning.inference.export.comparison import (
    Difference,
    check_differences,
    check_sizes,
    compare,
    latency_ms,
    network_runner,
)
from depth_lightning.inference.export.layout import require
from depth_lightning.inference.export.pt2 import Pt2, program_runner, save_program
from depth_lightning.inference.export.transformers import transformers_runner
from depth_lightning.models import DepthAnythingV2, normalize, save_weights
from depth_lightning.models.weight_files import read_weights

SIZES = [(84, 84), (84, 112), (42, 154)]


def test_one_graph_serves_every_size_and_batch(program, narrow, tmp_path):
    save_program(program, tmp_path / "model.pt2", json.dumps({"max_depth": 10.0}))
    exported = program_runner(tmp_path / "model.pt2")
    for difference in compare(exported, network_runner(narrow), SIZES):
        assert difference.largest <= 1e-5
    image = torch.rand(3, 3, 42, 70)
    with torch.no_grad():
        torch.testing.assert_close(exported(image), narrow(normalize(image)), rtol=0, atol=1e-5)
        assert exported(image[:1]).shape == (1, 42, 70)
    extra = {"metadata.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert json.loads(extra["metadata.json"]) == {"max_depth": 10.0}


def test_a_tensor_that_is_read_back_otherwise_is_named(narrow, tmp_path, monkeypatch):
    def off_by_one(path):
        content = read_weights(path)
        content.state["pretrained.norm.bias"][0] += 1
        return content

    monkeypatch.setattr(weights, "read_weights", off_by_one)
    with pytest.raises(ValueError, match=r"model\.safetensors, read back, .* in pretrained\.norm\.bias\."):
        LAYOUTS["safetensors"]().write(narrow, tmp_path / "out", {}, 84)


def test_transformers_agrees_at_the_size_of_the_table_alone(narrow, tmp_path):
    pytest.importorskip("transformers")
    save_weights(narrow, tmp_path / "folder", "transformers")
    runner = transformers_runner(tmp_path / "folder")
    there, elsewhere = compare(runner, network_runner(narrow), [(84, 84), (84, 168)])
    assert there.largest <= 1e-4
    assert elsewhere.largest > 1e-3


@pytest.mark.parametrize("bias", [-6e4, 6e4])
def test_half_precision_survives_logits_that_saturate(narrow, bias):
    half = copy.deepcopy(narrow).half()
    torch.nn.init.constant_(half.head.scratch.output_conv2[2].bias, bias)
    with torch.no_grad():
        depth = half(normalize(torch.rand(1, 3, 84, 112)).half())
    assert depth.dtype == torch.float32 and depth.log().isfinite().all() and (depth <= 10).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": (84, 100)}, r"^size is .*multiples of 14, as in \[518, 686\], .* or null for any, found \(84, 100\)"),
        ({"size": (84,)}, r"found \(84,\)"),
        ({"size": (0, 84)}, r"found \(0, 84\)"),
        ({"precision": "fp16"}, r"^precision is float32 or float16, found 'fp16'"),
    ],
)
def test_what_cannot_be_traced_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pt2(**arguments)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("size", [None, (84, 112)])
def test_the_usage_is_python(name, size, monkeypatch):
    monkeypatch.setattr(LAYOUTS[name], "packages", ())  # which the words do not need
    takes_size = issubclass(LAYOUTS[name], Graph)
    layout = LAYOUTS[name](size) if takes_size else LAYOUTS[name]()
    code = layout.usage("disparity")
    compile(code, "usage", "exec")
    assert "disparity" in code and "depth_m" not in code
    if takes_size:
        assert ("84×112" if size else "multiples of 14") in code
        assert ("84×112 alone." if size else "multiples of 14, 42 or more.") in layout.limits[0]


def test_differences_are_shares_of_the_range():
    ramp = torch.linspace(2, 6, 8).expand(2, 14, 8)
    off = ramp.clone()
    off[0, 0, 0] += 0.4
    (difference,) = compare(lambda image: off, lambda image: ramp, [(14, 14)])
    assert difference.size == (14, 14)
    assert difference.largest == pytest.approx(0.1)
    assert difference.mean == pytest.approx(0.1 / ramp.numel())


def test_more_than_the_limit_is_an_error():
    fine, off = Difference((14, 14), 1e-3, 0.0), Difference((14, 28), 2e-3, 0.0)
    check_differences([fine], 1e-3)
    with pytest.raises(ValueError, match=r"by 2\.0e-03 of the range at 14×28, more than 0\.001; nothing was written"):
        check_differences([fine, off], 1e-3)


def test_nan_and_another_shape_are_errors():
    depth = torch.rand(2, 14, 14)
    with pytest.raises(ValueError, match="NaN or infinities at 14×14, and the network does not"):
        list(compare(lambda image: depth / 0, lambda image: depth, [(14, 14)]))
    with pytest.raises(ValueError, match=r"\(2, 1, 14, 14\), and the network \(2, 14, 14\)"):
        list(compare(lambda image: depth[:, None], lambda image: depth, [(14, 14)]))


def test_sizes_are_that_of_the_table_and_both_orientations(narrow):
    with torch.device("meta"):
        vits = DepthAnythingV2("vits")
    assert check_sizes(vits, 518) == [(518, 518), (518, 686), (686, 518)]
    assert check_sizes(narrow, 84) == [(84, 84), (84, 112), (112, 84)]


def test_latency_is_that_of_the_calls():
    calls = []
    assert latency_ms(lambda image: calls.append(1), torch.zeros(1)) >= 0
    assert len(calls) == 6


def test_a_missing_package_is_one_line():
    require("layout=onnx", "torch")
    with pytest.raises(
        ModuleNotFoundError, match=r"layout=onnx needs no_such, .*pip install 'depth-lightning\[export\]'"
    ):
        require("layout=onnx", "torch", "no_such")
