import re

import lightning
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay

from depth_lightning.models import DepthAnythingV2
from depth_lightning.settings import SettingError
from depth_lightning.training.display.learning_rates import LearningRates, rates_by_part
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
        ("weight_decay", [-0.1, float("nan"), "some"], "a number from 0 to 1,000"),
        ("layer_decay", [1.5, 0, -0.8, "deep", True], "a number above 0 and at most 1"),
        ("no_decay", ["norm", ["norms"], [True], 3], "a list of norm, bias, position"),
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


@pytest.mark.parametrize("name", ["dinov3_vitt", "dinov2reg_vits"])
def test_the_table_of_layer_decay_of_its_encoders_is_that_of_timm(name):
    network = DepthAnythingV2(name)
    vit = network.encoder.vit
    theirs = {}
    for group in param_groups_layer_decay(vit, 0.05, vit.no_weight_decay(), layer_decay=0.75):
        for parameter in group["params"]:
            theirs[parameter] = (pytest.approx(group["lr_scale"]), group["weight_decay"])
    no_decay = ["norm", "bias", "position"]
    divided = adamw(network.parameter_groups(), lr=2e-5, weight_decay=0.05, layer_decay=0.75, no_decay=no_decay)
    ours = {
        parameter: (group["lr"] / 2e-5, group["weight_decay"])
        for group in divided.param_groups
        for parameter in group["params"]
        if group["name"].startswith("encoder")
    }
    assert len(ours) == len(list(vit.parameters()))
    assert {parameter: ours[parameter] for parameter in theirs} == theirs


def test_the_table_of_layer_decay_is_that_of_timm():
    network = DepthAnythingV2("tiny")
    vit = VisionTransformer(
        img_size=(84, 112), patch_size=14, embed_dim=192, depth=8, num_heads=3, init_values=1e-5, num_classes=0
    )
    theirs = {}
    names = {parameter: name for name, parameter in vit.named_parameters()}
    for group in param_groups_layer_decay(vit, 0.05, vit.no_weight_decay(), layer_decay=0.75):
        for parameter in group["params"]:
            theirs[names[parameter]] = (group["lr_scale"], group["weight_decay"])
    ours = {}
    names = {parameter: name for name, parameter in network.encoder.named_parameters()}
    optimizer = adamw(
        network.parameter_groups(),
        lr=2e-5,
        weight_decay=0.05,
        layer_decay=0.75,
        no_decay=["norm", "bias", "position"],
    )
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in names:
                ours[names[parameter]] = (pytest.approx(group["lr"] / 2e-5), group["weight_decay"])
    assert theirs == ours
    assert [round(group["lr"] / 2e-5, 6) for group in optimizer.param_groups[-4:]] == [1, 1, 10, 10]
    assert len(optimizer.param_groups) == 20 and optimizer.param_groups[0]["name"] == "encoder.layer_0.no_decay"


def test_every_parameter_is_in_one_group_however_they_are_divided():
    network = DepthAnythingV2("tiny")
    optimizer = adamw(network.parameter_groups(), no_decay=["position"])
    sizes = {group["name"]: len(group["params"]) for group in optimizer.param_groups}
    assert sizes["encoder.no_decay"] == 2 and list(sizes) == ["encoder.no_decay", "encoder", "head"]
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters() if p.requires_grad)


def test_a_frozen_encoder_has_no_layers_to_decay():
    groups = DepthAnythingV2("tiny", freeze_encoder=True).parameter_groups()
    with pytest.raises(
        SettingError, match=r"^layer_decay divides the rate of the encoder, which is frozen; found 0\.8"
    ):
        adamw(groups, layer_decay=0.8)


def test_few_rates_are_logged_and_many_groups_are_printed(capsys):
    groups = DepthAnythingV2("tiny").parameter_groups()
    divided = adamw(groups, lr=1e-4, layer_decay=0.5, no_decay=["norm"])
    assert rates_by_part(divided) == {"encoder": 1e-4, "head": pytest.approx(1e-3)}
    assert rates_by_part(torch.optim.SGD([*groups["head"]], lr=0.1)) == {"0": 0.1}
    trainer = lightning.Trainer(accelerator="cpu", logger=False)
    for optimizer, printed in ((adamw(groups), False), (divided, True)):
        trainer.strategy.optimizers = [optimizer]
        LearningRates().on_train_start(trainer, None)
        lines = capsys.readouterr().out.splitlines()
        assert bool(lines) == printed
    row = next(line for line in lines if "encoder.layer_7 " in line)
    assert [cell.strip() for cell in row.split("│")[1:-1]] == ["encoder.layer_7", "444,096", "5e-05", "0.01"]
