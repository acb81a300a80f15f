import pytest
import torch

from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.sample import DepthKind
from depth_lightning.training import Objective

METRES, UP_TO_SCALE, DISPARITY = DepthKind.METRES, DepthKind.UP_TO_SCALE, DepthKind.DISPARITY
SILOG, SCALE_FREE, AFFINE = SiLogLoss(0.5), SiLogLoss(1.0), AffineInvariantLoss()


def _objective(output, max_depth=10.0):
    return Objective(metres=SILOG, up_to_scale=SCALE_FREE, disparity=AFFINE, output=output, max_depth=max_depth)


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.rand(2, 3, 16, 16, generator=generator) * 8 + 0.5
    mask = torch.rand(3, 16, 16, generator=generator) < 0.8
    return prediction, torch.where(mask, target, 0), mask


@pytest.mark.parametrize(
    "output, kind, expected",
    [
        ("metric", METRES, lambda p, t, m: SILOG(p, t, m)),
        ("metric", UP_TO_SCALE, lambda p, t, m: SCALE_FREE(p, t, m)),
        ("metric", DISPARITY, lambda p, t, m: AFFINE(1 / p, t, m)),
        ("relative", METRES, lambda p, t, m: AFFINE(p, 1 / t.clamp(min=1e-3), m)),
        ("relative", UP_TO_SCALE, lambda p, t, m: AFFINE(p, 1 / t.clamp(min=1e-3), m)),
        ("relative", DISPARITY, lambda p, t, m: AFFINE(p, t, m)),
    ],
)
def test_every_kind_meets_its_loss(maps, output, kind, expected):
    assert _objective(output)(*maps, [kind] * 3).item() == pytest.approx(expected(*maps).item(), rel=1e-5)


def test_a_mixed_batch_is_the_average_over_its_images(maps):
    prediction, target, mask = maps
    loss = _objective("metric")(prediction, target, mask, [METRES, DISPARITY, METRES])
    metric = SILOG(prediction[[0, 2]], target[[0, 2]], mask[[0, 2]])
    relative = AFFINE(1 / prediction[[1]], target[[1]], mask[[1]])
    assert loss.item() == pytest.approx(((2 * metric + relative) / 3).item(), rel=1e-5)


def test_truth_that_the_network_cannot_reach_is_left_out(maps):
    prediction, target, mask = maps
    expected = SILOG(prediction, target, mask & (target <= 4.0))
    assert _objective("metric", max_depth=4.0)(*maps, [METRES] * 3) == expected


@pytest.mark.parametrize("output", ["metric", "relative"])
def test_gradients_are_finite_with_holes_everywhere(output):
    for kinds in ([METRES] * 2, [UP_TO_SCALE] * 2, [DISPARITY] * 2, [METRES, DISPARITY]):
        prediction = torch.rand(2, 8, 8).add(0.1).requires_grad_()
        loss = _objective(output)(prediction, torch.zeros(2, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool), kinds)
        loss.backward()
        assert loss == 0
        assert (prediction.grad == 0).all()
