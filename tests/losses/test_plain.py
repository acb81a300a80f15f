import doctest

import numpy as np
import pytest
import torch

from depth_lightning.losses import AffineInvariantLoss, L1Loss, L2Loss, LogL1Loss, OfInverse, SiLogLoss, plain
from depth_lightning.losses.affine_invariant import gradient_matching_per_image

NUMPY = {
    L1Loss: lambda p, t: np.abs(p - t).mean(),
    L2Loss: lambda p, t: ((p - t) ** 2).mean(),
    LogL1Loss: lambda p, t: np.abs(np.log(p) - np.log(t)).mean(),
}
LOSSES = [L1Loss(), L2Loss(), LogL1Loss(), OfInverse(AffineInvariantLoss())]


def _maps(seed=0, height=20, width=30):
    rng = np.random.default_rng(seed)
    prediction, target = rng.uniform(0.1, 80, (2, 3, height, width)).astype(np.float32)
    mask = rng.random((3, height, width)) < np.array([0.02, 0.5, 1.0])[:, None, None]
    return tuple(map(torch.from_numpy, (prediction, target, mask)))


@pytest.mark.parametrize("loss", NUMPY)
def test_plain_losses_equal_numpy_over_the_valid_pixels_of_the_batch(loss):
    prediction, target, mask = _maps()
    expected = NUMPY[loss](prediction[mask].double().numpy(), target[mask].double().numpy())
    assert loss()(prediction, target, mask).item() == pytest.approx(expected, rel=1e-5)


def test_of_inverse_is_the_loss_of_disparities():
    prediction, target, mask = _maps()
    loss = AffineInvariantLoss()
    expected = loss(1 / prediction, 1 / target, mask)
    assert OfInverse(loss)(prediction, target, mask).item() == pytest.approx(expected.item(), rel=1e-5)


def test_bts_is_ten_times_the_root_of_variance_and_some_squared_mean():
    prediction, target, mask = _maps()
    d = np.log(prediction[mask].double().numpy()) - np.log(target[mask].double().numpy())
    expected = 10 * np.sqrt(d.var() + 0.15 * d.mean() ** 2)
    assert SiLogLoss(0.85, factor=10.0)(prediction, target, mask).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"^factor is a number above 0 and at most 1,000,000, found 0\.$"):
        SiLogLoss(factor=0)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_plain_losses_of_nothing_are_zero_with_zero_gradient(loss):
    prediction = torch.rand(2, 8, 8, requires_grad=True)
    value = loss(prediction, torch.zeros(2, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool))
    value.backward()
    assert value == 0
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("junk", [0.0, -1.0, 1e30, torch.inf, torch.nan])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_holes_change_neither_plain_loss_nor_gradient(loss, junk):
    values = []
    for fill in (1.0, junk):
        prediction, target, mask = _maps()
        prediction = prediction.masked_fill(~mask, fill).requires_grad_()
        loss(prediction, target.masked_fill(~mask, fill), mask).backward()
        values.append(prediction.grad)
    assert values[1].isfinite().all() and (values[1][~mask] == 0).all()
    assert torch.equal(*values)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_plain_losses_are_float32_under_autocast(loss):
    prediction, target, mask = (torch.cat([maps] * 4) for maps in _maps(height=200, width=300))
    expected = loss(prediction.half().float(), target, mask)
    with torch.autocast("cpu", dtype=torch.float16):
        value = loss(prediction.half(), target, mask)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_plain_examples_in_docstrings():
    results = doctest.testmod(plain)
    assert results.attempted and not results.failed


# Gradient matching where LiDAR leaves few neighbours.


def test_no_neighbours_no_gradient_matching():
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, ::2, 1::2] = True  # no two of them touch, at any stride
    residual = torch.rand(1, 32, 32).masked_fill(~mask, 0)
    assert gradient_matching_per_image(residual, mask, 4) == 0
    disparity, target = torch.rand(2, 1, 32, 32)
    with_term, without = (AffineInvariantLoss(weight)(disparity, target, mask) for weight in (2.0, 0.0))
    assert with_term == without > 0


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_gradient_matching_fades_with_the_density_of_valid_pixels(share):
    """A valid pixel has a valid neighbour with probability `share`, and the term steps back by as much."""
    generator = torch.Generator().manual_seed(1)
    residual = torch.rand(8, 256, 256, generator=generator)
    mask = torch.rand(8, 256, 256, generator=generator) < share
    dense, sparse = (
        gradient_matching_per_image(residual.masked_fill(~valid, 0), valid, 1).mean().item()
        for valid in (torch.ones_like(mask), mask)
    )
    assert sparse == pytest.approx(share * dense, rel=0.35)
    prediction = torch.rand(8, 256, 256, generator=generator, requires_grad=True)
    AffineInvariantLoss()(prediction, residual, mask).backward()
    assert prediction.grad.isfinite().all() and prediction.grad.any()
