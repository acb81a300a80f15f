import numpy as np
import pytest
import torch

from depth_lightning.losses import FeatureAlignmentLoss
from depth_lightning.settings import SettingError


def _by_numpy(features, frozen, tolerance, weight=None, bias=None):
    """The mean over images of the mean over patches that are not close already, one at a time in float64."""
    losses = []
    for own, others in zip(features.astype(float), frozen.astype(float), strict=True):
        distances = []
        for f, g in zip(own, others, strict=True):
            f = f if weight is None else weight.astype(float) @ f + bias
            cosine = (f * g).sum() / np.sqrt((f**2).sum() * (g**2).sum())
            if cosine <= tolerance:
                distances.append(1 - cosine)
        losses.append(np.mean(distances) if distances else 0.0)
    return np.mean(losses)


@pytest.mark.parametrize("tolerance", [0.05, 0.85, 1.0])
@pytest.mark.parametrize("frozen_width", [12, 20])
def test_it_equals_numpy(tolerance, frozen_width):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 35, 12)).astype(np.float32)
    frozen = rng.normal(size=(3, 35, frozen_width)).astype(np.float32)
    frozen[:, ::2, :12] = features[:, ::2] + 0.3 * frozen[:, ::2, :12]
    torch.manual_seed(0)
    loss = FeatureAlignmentLoss(12, frozen_width, tolerance)
    own = [each.detach().numpy() for each in loss.parameters()]
    assert [each.shape for each in own] == ([] if frozen_width == 12 else [(20, 12), (20,)])
    expected = _by_numpy(features, frozen, tolerance, *own)
    assert loss(torch.from_numpy(features), torch.from_numpy(frozen)).item() == pytest.approx(expected, rel=1e-5)


def test_close_patches_get_no_gradient_and_neither_does_the_frozen_encoder():
    features = torch.eye(4)[None, :2].clone().requires_grad_()
    frozen = torch.tensor([[[1.0, 0.1, 0, 0], [1.0, 0.2, 0, 0]]], requires_grad=True)
    FeatureAlignmentLoss(4, 4)(features, frozen).backward()
    assert (features.grad[0, 0] == 0).all() and (features.grad[0, 1] != 0).any() and frozen.grad is None


def test_images_whose_features_all_agree_give_no_loss_and_a_finite_gradient():
    features = torch.rand(2, 5, 4).requires_grad_()
    loss = FeatureAlignmentLoss(4, 4)(features, features.detach())
    loss.backward()
    assert loss == 0 and (features.grad == 0).all()


def test_float32_under_autocast():
    features, frozen = torch.randn(2, 2, 40, 8)
    expected = FeatureAlignmentLoss(8, 8)(features.half().float(), frozen.half().float())
    with torch.autocast("cpu", dtype=torch.float16):
        assert FeatureAlignmentLoss(8, 8)(features.half(), frozen.half()).item() == pytest.approx(expected.item())


def test_wrong_arguments_are_refused():
    with pytest.raises(SettingError, match=r"^tolerance is a number above 0 and at most 1, found 1\.5\.$"):
        FeatureAlignmentLoss(4, 4, tolerance=1.5)
