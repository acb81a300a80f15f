"""What DepthModule makes of a prediction before it is scored."""

import pytest
import torch

from depth_lightning.metrics import DepthMetrics, Protocol
from depth_lightning.models import normalize
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training import DepthModule


class Brightness(torch.nn.Module):
    """A network that is not symmetric: red plus the column's number."""

    max_depth = 10.0

    def __init__(self, output="metric"):
        super().__init__()
        self.output = output

    def forward(self, image):
        return image[:, 0] + 3 + torch.arange(image.shape[-1]) / 10


def _batch(*kinds):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(len(kinds), 3, 14, 28, generator=generator)
    target = 1 + 5 * torch.rand(len(kinds), 14, 28, generator=generator)
    unknown = torch.full((len(kinds), 4), torch.nan)
    return DepthBatch(image, target, target > 2, unknown, kinds, [""] * len(kinds), [""] * len(kinds))


def test_flip_average_is_the_mean_with_the_mirrored_images_prediction():
    batch = _batch(DepthKind.METRES)
    plain, flipped = (
        DepthModule(Brightness(), DepthMetrics(Protocol(flip_average=flip))).predict_batch(batch)
        for flip in (False, True)
    )
    image = normalize(batch.image)
    assert torch.allclose(plain, Brightness()(image))
    assert torch.allclose(flipped, image[:, 0] + 3 + 1.35, atol=1e-5)  # the columns' numbers average out


@pytest.mark.parametrize("alignment", ["none", "scale_ratio_of_medians"])
def test_truth_up_to_scale_is_counted_where_nothing_aligns_it(alignment):
    module = DepthModule(Brightness(), DepthMetrics(Protocol(alignment=alignment)))
    batch = _batch(DepthKind.METRES, DepthKind.UP_TO_SCALE, DepthKind.DISPARITY, DepthKind.UP_TO_SCALE)
    module.validation_step(batch, 0)
    assert module.metrics.counts() == ((1, 0, 2) if alignment == "none" else (3, 0, 0))
    assert module.affine_metrics.counts() == (1, 0, 0)


def test_score_depth_converts_for_the_alignment():
    """A network that is exact up to scale and shift in disparity, whichever it gives, scores 0."""
    batch = _batch(DepthKind.METRES)
    module, relative = DepthModule(Brightness()), DepthModule(Brightness("relative"))
    metrics = DepthMetrics(Protocol(alignment="scale_shift_disparity"))
    module.score_depth(metrics, batch, 1 / (0.3 / batch.target + 0.2))
    relative.score_depth(metrics, batch, 3 / batch.target + 2)
    assert metrics.compute()["abs_rel"] < 1e-5 and metrics.counts() == (2, 0, 0)
    scaled = DepthMetrics(Protocol(alignment="scale_least_squares"))
    relative.score_depth(scaled, batch, 3 / batch.target)
    assert scaled.compute()["abs_rel"] < 1e-5


def test_disparity_is_not_scored_as_metres():
    with pytest.raises(ValueError, match="protocol=affine_disparity"):
        DepthModule(Brightness("relative"), DepthMetrics(Protocol()))
    assert DepthModule(Brightness("relative")).metrics.protocol.alignment == "scale_shift_disparity"
