import pytest
import torch

from depth_lightning.settings import SettingError
from depth_lightning.training.scheduler import constant, cosine, poly


@pytest.mark.parametrize(
    "schedule, expected",
    [
        (lambda s: poly(s, 10), [1.0, 0.90953, 0.81805, 0.72543, 0.63140, 0.53589, 0.43836, 0.33839, 0.23492, 0.12589]),
        (lambda s: poly(s, 4, power=1.0), [1.0, 0.75, 0.5, 0.25]),
        (lambda s: poly(s, 10, power=1.0, warmup=0.2), [1 / 3, 2 / 3, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (lambda s: cosine(s, 4), [1.0, 0.85355, 0.5, 0.14645, 0.0]),
        (lambda s: cosine(s, 8, warmup=0.5), [0.2, 0.4, 0.6, 0.8, 1.0, 0.85355, 0.5, 0.14645]),
        (lambda s: constant(s, 4, warmup=0.5), [1 / 3, 2 / 3, 1.0, 1.0]),
    ],
)
def test_schedules_as_a_table(schedule, expected):
    # The first poly row is (1 − i/10)^0.9 by the formula of Depth Anything V2's training script.
    assert [schedule(step) for step in range(len(expected))] == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("steps", [3, 10, 100])
def test_cosine_equals_torch(steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for step in range(steps + 1):
        assert cosine(step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        reference.step()


def test_poly_is_exact():
    assert [poly(step, 7) for step in range(7)] == pytest.approx([(1 - step / 7) ** 0.9 for step in range(7)])


def test_a_step_past_the_end_has_rate_zero():
    assert poly(11, 10) == cosine(11, 10) == 0.0


@pytest.mark.parametrize("schedule", [poly, cosine, constant])
@pytest.mark.parametrize("warmup", [500, 1, -0.1, float("nan"), "long"])
def test_warmup_is_a_share(schedule, warmup):
    with pytest.raises(SettingError, match=rf"^warmup is a number of at least 0 and below 1, found {warmup!r}\.$"):
        schedule(0, 1000, warmup=warmup)


@pytest.mark.parametrize("power", [-1, float("nan"), None])
def test_power_is_not_negative(power):
    with pytest.raises(SettingError, match=rf"^power is a number of at least 0 and at most 100, found {power!r}\.$"):
        poly(0, 10, power=power)
