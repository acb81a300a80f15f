"""Learning-rate schedules: the factor on every group's rate, as a plain function of the step.

`warmup` is the share of the run over which the rate first rises linearly: 0.05 is half an epoch out of ten.

>>> [round(poly(step, total_steps=10), 3) for step in (0, 5, 9)]
[1.0, 0.536, 0.126]
"""

import math
from collections.abc import Callable

from depth_lightning.settings import number

Schedule = Callable[[int, int], float]
"""step (from 0), total_steps → factor."""


def poly(step: int, total_steps: int, power: float = 0.9, warmup: float = 0.0) -> float:
    """(1 − progress)^power; Depth Anything V2 trains with a power of 0.9."""
    rise, progress = _warmup(step, total_steps, warmup)
    return rise * float((1 - progress) ** number("power", power, least=0, most=100))


def cosine(step: int, total_steps: int, warmup: float = 0.0) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, 2017)."""
    rise, progress = _warmup(step, total_steps, warmup)
    return rise * 0.5 * (1 + math.cos(math.pi * progress))


def constant(step: int, total_steps: int, warmup: float = 0.0) -> float:
    """1 after the warm-up."""
    return _warmup(step, total_steps, warmup)[0]


def _warmup(step: int, total_steps: int, warmup: float) -> tuple[float, float]:
    """The warm-up factor, in (0, 1], and the progress after the warm-up, in [0, 1]."""
    warmup_steps = round(number("warmup", warmup, least=0, below=1) * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1), 0.0
    return 1.0, min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
