"""A factor, or scale and shift of disparity, goes into the last layer and max_depth: no layer is added."""

import pytest
import torch

from depth_lightning.inference import load
from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.settings import SettingError

IMAGE = torch.randn(2, 3, 42, 56, generator=torch.Generator().manual_seed(0))


def network(**options):
    torch.manual_seed(0)
    return DepthAnythingV2("tiny", **options).eval()


@torch.no_grad()
def predicted(made):
    return made(IMAGE)


@pytest.mark.parametrize("head", ["sigmoid", "log_depth", "inverse_depth"])
def test_a_factor_multiplies_every_depth(head):
    made = network(head=head, max_depth=20.0)
    if head != "sigmoid":
        made.start_at(3.0)
    before = predicted(made)
    assert before.std() > 0
    made.multiply(1.3)
    torch.testing.assert_close(predicted(made), 1.3 * before, rtol=1e-5, atol=0)
    assert made.max_depth == pytest.approx(26)


@pytest.mark.parametrize("shift", [0.02, -0.05])
def test_a_relative_network_gets_metres(shift):
    made = network(output="relative", max_depth=50.0)
    disparity = predicted(made)
    made.to_metres(0.3, shift)
    metres = predicted(made)
    expected = 1 / (0.3 * disparity.double() + shift).clamp(min=1 / 50)
    torch.testing.assert_close(metres.double(), expected, rtol=1e-4, atol=0)
    assert (made.output, made.head_name) == ("metric", "inverse_depth")
    assert made.max_depth == 50


def test_no_disparity_is_as_far_as_the_shift_says():
    made = network(output="relative", max_depth=50.0)
    torch.nn.init.constant_(made.head.get_parameter("scratch.output_conv2.2.bias"), -1e3)
    made.to_metres(0.3, 0.25)
    torch.testing.assert_close(predicted(made), torch.full((2, 42, 56), 4.0))
    assert made.max_depth == 4


def test_the_authors_relative_class_reads_its_file_as_inverse_depth(tmp_path):
    made = network(output="relative", max_depth=50.0)
    made.to_metres(0.3, 0.05)
    save_weights(made, tmp_path / "model.pth")
    relative = DepthAnythingV2("tiny", output="relative").eval()
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    own = {key.replace("pretrained.", "encoder.").replace("depth_head.", "head."): state[key] for key in state}
    relative.load_state_dict(own)
    inverse = predicted(relative).clamp(min=1 / made.max_depth)
    torch.testing.assert_close(1 / inverse, predicted(made), rtol=1e-6, atol=0)
    same = load(tmp_path / "model.pth", device="cpu").network
    torch.testing.assert_close(predicted(same), predicted(made), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"^layout=transformers is read by code that ends in a sigmoid"):
        save_weights(made, tmp_path / "folder", layout="transformers")


def test_a_relative_network_has_no_other_head():
    with pytest.raises(SettingError, match=r"^head is sigmoid where output=relative, .*; found 'inverse_depth'\.$"):
        network(output="relative", head="inverse_depth")
