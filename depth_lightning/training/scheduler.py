"""Learning-rate schedules: the factor on every group's rate, as a plain function of the step.

`warmup` is the share of the run over which the rate rises linearly first: 0.05 is half an epoch of ten.

>>> [round(poly(step, total_steps=10), 3) for step in (0, 5, 9)]
[1.0, 0.536, 0.126]
"""

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]
"""step (from 0), total_steps → factor."""


def poly(step: int, total_steps: int, power: float = 0.9, warmup: float = 0.0) -> float:
    """(1 − progress)^power: with 0.9, what Depth Anything V2 trains with."""
    if not (isinstance(power, int | float) and power >= 0):
        raise ValueError(f"scheduler.power is a number, 0 or above, found {power!r}.")
    rise, progress = _warmup(step, total_steps, warmup)
    return rise * float((1 - progress) ** power)


def cosine(step: int, total_steps: int, warmup: float = 0.0) -> float:
    """Half a cosine from 1 to 0 (Loshchilov and Hutter, 2017)."""
    rise, progress = _warmup(step, total_steps, warmup)
    return rise * 0.5 * (1 + math.cos(math.pi * progress))


def constant(step: int, total_steps: int, warmup: float = 0.0) -> float:
    """1 after the warm-up."""
    return _warmup(step, total_steps, warmup)[0]


def _warmup(step: int, total_steps: int, warmup: float) -> tuple[float, float]:
    """The factor of the warm-up, in (0, 1], and the progress of what follows it, in [0, 1]."""
    if not (isinstance(warmup, int | float) and 0 <= warmup < 1):
        raise ValueError(f"scheduler.warmup is a share of the run in [0, 1), found {warmup!r}.")
    warmup_steps = round(warmup * total_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1), 0.0
    return 1.0, min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
