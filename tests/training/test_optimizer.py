import re

import pytest
import torch

from depth_lightning.models import DepthAnythingV2
from depth_lightning.settings import SettingError
from depth_lightning.training.optimizer import adamw


def test_every_trainable_parameter_is_in_one_group_with_its_rate():
    network = DepthAnythingV2("tiny")
    optimizer = adamw(network.parameter_groups(), lr=2e-6, head_lr_scale=10, weight_decay=0.01)
    encoder, head = optimizer.param_groups
    assert (encoder["name"], encoder["lr"], head["name"], head["lr"]) == ("encoder", 2e-6, "head", pytest.approx(2e-5))
    assert encoder["weight_decay"] == head["weight_decay"] == 0.01
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_a_frozen_encoder_has_no_group():
    optimizer = adamw(DepthAnythingV2("tiny", freeze_encoder=True).parameter_groups())
    assert [group["name"] for group in optimizer.param_groups] == ["head"]


@pytest.mark.parametrize(
    "name, values, expected",
    [
        ("lr", [-1e-5, 0, float("nan"), float("inf"), 1e30, True, "fast", None], "a number above 0 and at most 1"),
        ("head_lr_scale", [-2, 0.0, None], "a number above 0 and at most 1,000,000"),
        ("weight_decay", [-0.1, float("nan"), "some"], "a number of at least 0 and at most 1,000"),
        ("betas", [(0.9,), (1.0, 0.999), (0.9, -0.1), 0.9, "ab"], r"\[β1, β2\], from 0 to below 1"),
    ],
)
def test_values_that_cannot_be_right_are_named(name, values, expected):
    groups = DepthAnythingV2("tiny").parameter_groups()
    for value in values:
        with pytest.raises(SettingError, match=rf"^{name} is {expected}, found {re.escape(repr(value))}\.$"):
            adamw(groups, **{name: value})
    assert adamw(groups, weight_decay=0.0, betas=(0.0, 0.999))


@pytest.mark.parametrize("groups", [{"head": []}, {"decoder": [torch.nn.Parameter(torch.zeros(1))]}])
def test_a_group_that_matches_nothing_is_an_error(groups):
    with pytest.raises(ValueError, match="expected the groups encoder and head"):
        adamw(groups)
