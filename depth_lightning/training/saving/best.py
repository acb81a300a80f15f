"""Which validation of a run was the best."""

import logging
import math
from typing import Any, Literal

import lightning

log = logging.getLogger(__name__)

WITHOUT_METRES = "val/affine_error"
"""What decides where no truth allows the metric that was asked for."""


class BestValidation:
    """The best score so far, and its step.

    Args:
        monitor: the metric that decides.
        mode: whether the least or the greatest is best; NaN is the worst.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"]) -> None:
        self.monitor, self.mode = monitor, mode
        self.score: float | None = None
        self.step: int | None = None

    def improved(self, trainer: lightning.Trainer) -> bool:
        """Whether the last validation is the best so far, and from now on what others have to better.

        Raises:
            ValueError: nothing was validated under the name of the monitor.
        """
        metrics = trainer.callback_metrics
        if self.monitor not in metrics and WITHOUT_METRES in metrics:
            log.info(f"The best checkpoint is the one with the least {WITHOUT_METRES}: no truth allows {self.monitor}.")
            self.monitor, self.mode = WITHOUT_METRES, "min"
        if self.monitor not in metrics:
            known = ", ".join(name for name in metrics if name.startswith("val/"))
            raise ValueError(f"callbacks.checkpoints.monitor={self.monitor} is none of what is validated: {known}.")
        score = float(trainer.strategy.broadcast(float(metrics[self.monitor])))
        if math.isnan(score):
            score = math.inf if self.mode == "min" else -math.inf
        better = self.score is None or (score < self.score if self.mode == "min" else score > self.score)
        if better:
            self.score, self.step = score, trainer.global_step
        return better

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"monitor": self.monitor, "mode": self.mode, "best_score": self.score, "best_step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, if it goes by the same metric."""
        if state["monitor"] == WITHOUT_METRES or (state["monitor"], state["mode"]) == (self.monitor, self.mode):
            self.monitor, self.mode = state["monitor"], state["mode"]
            self.score, self.step = state["best_score"], state["best_step"]
