"""Networks with encoders of timm as graphs for any size, in float32 and float16."""

import pytest
import torch

from depth_lightning.inference.export import LAYOUTS
from depth_lightning.inference.export.comparison import check_sizes, compare, network_runner
from depth_lightning.inference.export.graph import export_program
from depth_lightning.inference.export.onnx import onnx_runner, save_onnx
from depth_lightning.inference.export.pt2 import program_runner, save_program
from depth_lightning.models import DepthAnythingV2
from depth_lightning.models.encoders import patch_of
from depth_lightning.settings import SettingError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def network_with(name):
    """Its first four blocks, and a head that predicts a range of depths."""
    torch.manual_seed(0)
    network = DepthAnythingV2(name, features=8, out_channels=[8, 8, 8, 8], taps=[0, 1, 2, 3])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["dinov3_vits", "dinov3_vits_plus", "dinov3_vitt", "dinov2reg_vits", "vit_base_patch16_siglip_256"],
)
def test_one_graph_takes_every_size(name, tmp_path):
    network = network_with(name)
    patch, (rows, columns) = network.encoder.patch, network.encoder.grid
    sizes = check_sizes(network, 64)
    assert sizes[0] == (patch * rows, patch * columns) and all(not h % patch and not w % patch for h, w in sizes)
    program = export_program(network)
    save_onnx(program, tmp_path / "model.onnx", "depth", {})
    save_program(program, tmp_path / "model.pt2", "{}")
    for runner in (onnx_runner(tmp_path / "model.onnx"), program_runner(tmp_path / "model.pt2")):
        for difference in compare(runner, network_runner(network), [*sizes, (3 * patch, 11 * patch)]):
            assert difference.largest <= 1e-4


def test_a_fixed_size_in_half_precision_for_the_lowest_version(tmp_path):
    network = network_with("dinov3_vits")
    save_onnx(export_program(network, (64, 80), "float16", 1), tmp_path / "half.onnx", "depth", {}, 17)
    images = torch.rand(1, 3, 64, 80)
    (expected,) = network_runner(network)(images)
    (half,) = onnx_runner(tmp_path / "half.onnx")(images)
    assert (half - expected).abs().max() <= 0.05 * (expected.max() - expected.min())


@pytest.mark.parametrize("layout", ["onnx", "pt2"])
def test_a_graphs_size_is_in_multiples_of_the_networks_patch(layout):
    assert patch_of("dinov3_vitl") == 16
    with pytest.raises(
        SettingError, match=r"^size is \[height,width\] in multiples of 16, as in \[528, 688\], .*518, 686"
    ):
        LAYOUTS[layout](size=[518, 686], patch=16)
    graph = LAYOUTS[layout](patch=16)
    assert "h and w multiples of 16" in graph.usage("depth_m") and "multiples of 16, 48 or more" in graph.limits[0]
