import numpy as np
import pytest
import torch

from depth_lightning.metrics import AffineMetrics
from depth_lightning.metrics.affine_metrics import affine_error, ordinal_error


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.rand(2, 3, 20, 30, generator=generator)
    return prediction, target, torch.rand(3, 20, 30, generator=generator) < 0.7


def test_affine_error_equals_the_reference(golden):
    import json

    for name in ("indoor", "outdoor"):
        arrays = {key: torch.from_numpy(value) for key, value in np.load(golden / f"metrics_{name}.npz").items()}
        expected = json.loads((golden / f"metrics_{name}.json").read_text())["affine_invariant_l1_per_image"]
        mask = arrays["mask"] & (arrays["target"] > 0)
        truth = torch.where(mask, 1 / arrays["target"], 0)
        assert affine_error(arrays["disparity"], truth, mask).tolist() == pytest.approx(expected, rel=1e-4)


def test_ordinal_error_equals_all_pairs_in_numpy(maps):
    prediction, target, mask = maps
    noisy = target + 0.3 * prediction
    for image, found in enumerate(ordinal_error(noisy, target, mask).tolist()):
        p, t = (values[image][mask[image]].numpy() for values in (noisy, target))
        deviation = np.abs(t - np.median(t)).mean()
        difference = t[:, None] - t[None]
        ordered = np.abs(difference) > 0.05 * deviation
        expected = (ordered & (difference * (p[:, None] - p[None]) <= 0)).sum() / ordered.sum()
        assert found == pytest.approx(expected, abs=0.015)  # of 10,000 draws


@pytest.mark.parametrize("a, b", [(3.0, -1.0), (0.01, 100.0)])
def test_unchanged_by_scale_and_shift(maps, a, b):
    prediction, target, mask = maps
    for function in (affine_error, ordinal_error):
        assert torch.allclose(function(a * prediction + b, target, mask), function(prediction, target, mask), rtol=1e-2)


def test_the_extremes(maps):
    _, target, mask = maps
    assert (affine_error(2 * target + 1, target, mask) < 1e-4).all()
    assert (ordinal_error(target, target, mask) == 0).all()
    assert (ordinal_error(-target, target, mask) == 1).all()
    assert (ordinal_error(torch.ones_like(target), target, mask) == 1).all()


def test_images_that_order_nothing_are_counted(maps):
    prediction, target, mask = maps
    metrics = AffineMetrics()
    metrics.update(prediction, target, mask)
    expected = metrics.compute()
    metrics.update(prediction[:1], torch.ones_like(target[:1]), mask[:1])
    metrics.update(prediction[:1], target[:1], torch.zeros_like(mask[:1]))
    assert metrics.compute() == expected
    assert metrics.counts() == (3, 1, 1)
