import json

import numpy as np
import pytest
import torch

from depth_lightning.affine import normalised
from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.losses.affine_invariant import gradient_matching_per_image, l1_per_image
from depth_lightning.settings import SettingError


@pytest.fixture(params=["indoor", "outdoor"])
def scene(request, golden):
    arrays = np.load(golden / f"metrics_{request.param}.npz")
    expected = json.loads((golden / f"metrics_{request.param}.json").read_text())
    tensors = {name: torch.from_numpy(arrays[name]) for name in arrays}
    tensors["mask"] &= tensors["target"] > 0
    return tensors, expected


def test_silog_equals_the_reference(scene):
    tensors, expected = scene
    loss = SiLogLoss(0.5)(tensors["prediction"], tensors["target"], tensors["mask"])
    assert loss.item() == pytest.approx(expected["silog_loss"], rel=1e-4)


def test_affine_invariant_terms_equal_the_reference(scene):
    tensors, expected = scene
    mask = tensors["mask"]
    disparity_target = torch.where(mask, 1 / tensors["target"], 0)
    residual = torch.where(mask, normalised(tensors["disparity"], mask) - normalised(disparity_target, mask), 0)
    l1 = l1_per_image(residual, mask)
    gradient = gradient_matching_per_image(residual, mask, 4)
    assert l1.tolist() == pytest.approx(expected["affine_invariant_l1_per_image"], rel=1e-4)
    assert gradient.tolist() == pytest.approx(expected["gradient_matching_4_scales_per_image"], rel=1e-4)
    loss = AffineInvariantLoss(gradient_weight=2.0, scales=4)(tensors["disparity"], disparity_target, mask)
    assert loss.item() == pytest.approx((l1 + 2 * gradient).mean().item(), rel=1e-5)


def _silog_numpy(prediction, target, mask, variance_focus):
    d = np.log(target[mask].astype(np.float64)) - np.log(prediction[mask].astype(np.float64))
    return np.sqrt((d**2).mean() - variance_focus * d.mean() ** 2)


@pytest.mark.parametrize("variance_focus", [0.0, 0.5, 0.85, 1.0])
def test_silog_equals_numpy(variance_focus):
    rng = np.random.default_rng(0)
    prediction, target = rng.uniform(0.1, 10, (2, 3, 20, 30)).astype(np.float32)
    mask = rng.random((3, 20, 30)) < 0.6
    loss = SiLogLoss(variance_focus)(*map(torch.from_numpy, (prediction, target, mask)))
    assert loss.item() == pytest.approx(_silog_numpy(prediction, target, mask, variance_focus), rel=1e-5)


@pytest.mark.parametrize("loss", [SiLogLoss(0.5), SiLogLoss(1.0), AffineInvariantLoss(), AffineInvariantLoss(trim=0.1)])
@pytest.mark.parametrize(
    "case", ["no valid pixel", "one valid pixel", "exact", "constant prediction", "constant target"]
)
def test_degenerate_inputs_give_finite_loss_and_gradient(loss, case):
    prediction = torch.rand(2, 16, 16) + 0.5
    target = torch.rand(2, 16, 16) + 0.5
    mask = torch.rand(2, 16, 16) < 0.7
    if case == "no valid pixel":
        mask = torch.zeros_like(mask)
        target = torch.zeros_like(target)
    elif case == "one valid pixel":
        mask = torch.zeros_like(mask)
        mask[0, 3, 4] = True
    elif case == "exact":
        prediction = target.clone()
    elif case == "constant prediction":
        prediction = torch.full_like(prediction, 2.0)
    else:
        target = torch.full_like(target, 2.0)
    prediction.requires_grad_()
    value = loss(prediction, target, mask)
    value.backward()
    assert value.isfinite()
    assert prediction.grad.isfinite().all()
    if case == "no valid pixel":
        assert value == 0
        assert (prediction.grad == 0).all()


@pytest.mark.parametrize("loss", [SiLogLoss(), AffineInvariantLoss()])
def test_what_lies_under_a_hole_changes_nothing(loss):
    prediction, target = torch.rand(2, 2, 16, 16) + 0.5
    mask = torch.rand(2, 16, 16) < 0.7
    expected = loss(prediction, target, mask)
    for junk in (0.0, 1e30, torch.inf, torch.nan):
        assert loss(prediction, target.masked_fill(~mask, junk), mask) == expected
        changed = prediction.masked_fill(~mask, junk).requires_grad_()
        value = loss(changed, target, mask)
        value.backward()
        assert value == expected
        assert changed.grad.isfinite().all()


@pytest.mark.parametrize("a, b", [(0.1, 0.0), (7.0, -3.0), (1e3, 50.0)])
def test_affine_invariant_loss_ignores_scale_and_shift(a, b):
    prediction, target = torch.rand(2, 2, 32, 32, dtype=torch.float32)
    mask = torch.rand(2, 32, 32) < 0.5
    loss = AffineInvariantLoss(trim=0.1)
    assert loss(a * prediction + b, target, mask).item() == pytest.approx(
        loss(prediction, target, mask).item(), rel=2e-3
    )


def test_negated_disparity_is_not_forgiven():
    target = torch.rand(1, 32, 32)
    mask = torch.ones(1, 32, 32, dtype=torch.bool)
    assert AffineInvariantLoss()(-target, target, mask) > 1


def test_trim_is_per_image():
    mask = torch.ones(2, 10, 10, dtype=torch.bool)
    residual = torch.zeros(2, 10, 10)
    residual[0] = 100.0
    residual[1, 0] = 1.0
    assert l1_per_image(residual, mask, trim=0.1).tolist() == [100.0, 0.0]


@pytest.mark.parametrize("loss", [SiLogLoss(), AffineInvariantLoss()])
def test_float32_under_autocast(loss):
    prediction, target = 8 * torch.rand(2, 1, 518, 518) + 1
    mask = torch.ones(1, 518, 518, dtype=torch.bool)
    expected = loss(prediction.half().float(), target, mask)
    with torch.autocast("cpu", dtype=torch.float16):
        assert loss(prediction.half(), target, mask).item() == pytest.approx(expected.item(), rel=1e-5)


def test_wrong_arguments_are_refused():
    with pytest.raises(SettingError, match=r"^variance_focus is a number of at least 0 and at most 1, found 1\.5\.$"):
        SiLogLoss(1.5)
    with pytest.raises(SettingError, match=r"^per_image is true or false, found 'no'\.$"):
        SiLogLoss(per_image="no")
    with pytest.raises(SettingError, match=r"^trim is a number of at least 0 and below 1, found 1\.0\.$"):
        AffineInvariantLoss(trim=1.0)
    with pytest.raises(SettingError, match=r"^scales is a whole number, 1 to 16, found True\.$"):
        AffineInvariantLoss(scales=True)
