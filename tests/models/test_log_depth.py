"""head=log_depth: metres without a max_depth that must fit; published heads load but for the last layer."""

import math

import pytest
import torch

from depth_lightning.inference import load
from depth_lightning.losses import SiLogLoss
from depth_lightning.models import DepthAnythingV2, load_weights, save_weights
from depth_lightning.settings import SettingError

LAST = "scratch.output_conv2.2"
IMAGE = torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(0))


def network(**options):
    torch.manual_seed(0)
    return DepthAnythingV2("tiny", **{"head": "log_depth", **options}).eval()


def with_bias(bias, made=None):
    made = made or network()
    torch.nn.init.constant_(made.head.get_parameter(f"{LAST}.bias"), bias)
    return made


def test_depth_is_the_exponential_of_the_last_layer():
    made, peer = network(), network(head="sigmoid", max_depth=1.0)
    with torch.no_grad():
        logits = torch.logit(peer(IMAGE).double())
        torch.testing.assert_close(made(IMAGE).double(), logits.exp(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("bias", "depth_m"), [(-1e4, 1e-3), (1e4, 1e3), (90.0, 1e3), (-200.0, 1e-3)])
def test_depth_is_bounded_and_the_gradient_finite(bias, depth_m):
    made = with_bias(bias)
    depth = made(IMAGE)
    torch.testing.assert_close(depth, torch.full_like(depth, depth_m), rtol=1e-5, atol=0)
    SiLogLoss()(depth, torch.ones_like(depth), torch.ones_like(depth, dtype=torch.bool)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_max_depth_is_the_bound():
    assert network().max_depth == 1000 and DepthAnythingV2("tiny").max_depth == 10
    assert with_bias(9.0, network(max_depth=80.0))(IMAGE).max().item() == pytest.approx(80, rel=1e-5)


def test_a_new_head_starts_at_the_median():
    made = network()
    made.start_at(23.0)
    with torch.no_grad():
        assert made(IMAGE).median().item() == pytest.approx(23, rel=0.3)


def test_float16_and_bfloat16_reach_a_kilometre():
    made = with_bias(math.log(900.0))
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            depth = made(IMAGE)
            loss = SiLogLoss()(depth, torch.full_like(depth, 0.002), torch.ones_like(depth, dtype=torch.bool))
        assert depth.dtype == loss.dtype == torch.float32 and depth.isfinite().all()
        assert loss.item() == pytest.approx(math.sqrt(0.5) * math.log(900 / 0.002), rel=0.05)


@pytest.mark.parametrize("output", ["metric", "relative"])
def test_a_published_head_loads_but_for_the_last_layer(output, tmp_path):
    torch.manual_seed(5)
    source = DepthAnythingV2("tiny", output=output)
    save_weights(source, tmp_path / "source.pth")
    made, before = network(), network().head.state_dict()
    report = load_weights(made, tmp_path / "source.pth")
    kept = {f"depth_head.{LAST}.{name}" for name in ("weight", "bias")}
    assert set(report.left_out) == kept and not report.dropped and not report.missing
    assert f"Left out, since the file's head ends otherwise than this one: depth_head.{LAST}." in str(report)
    for name, tensor in made.head.state_dict().items():
        assert torch.equal(tensor, before[name] if name.startswith(LAST) else source.head.state_dict()[name]), name


def test_its_own_file_loads_completely_and_describes_itself(tmp_path):
    source = with_bias(2.0, network(max_depth=300.0))
    save_weights(source, tmp_path / "own.safetensors", layout="safetensors")
    made = network(max_depth=300.0)
    assert not load_weights(made, tmp_path / "own.safetensors").left_out
    loaded = load(tmp_path / "own.safetensors", device="cpu").network
    with torch.no_grad():
        assert torch.equal(made(IMAGE), source(IMAGE)) and torch.equal(loaded(IMAGE), source(IMAGE))
    assert load_weights(DepthAnythingV2("tiny"), tmp_path / "own.safetensors").left_out


@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_layouts_that_end_in_a_sigmoid_are_refused(layout, tmp_path):
    with pytest.raises(ValueError, match=rf"^layout={layout} is read by code that ends in a sigmoid, .*layout=pt2\.$"):
        save_weights(network(), tmp_path / "file", layout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "log"}, r"^head is one of sigmoid, log_depth, inverse_depth, found 'log'\.$"),
        ({"output": "relative"}, r"^head is sigmoid where output=relative, .*; found 'log_depth'\.$"),
    ],
)
def test_what_is_no_head_is_refused(options, message):
    with pytest.raises(SettingError, match=message):
        network(**options)
