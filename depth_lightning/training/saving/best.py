"""The best validation of a run."""

import logging
import math
from typing import Any, Literal

import lightning

log = logging.getLogger(__name__)

WITHOUT_METRES = "val/affine_error"
"""The fallback monitor, used if no ground truth allows the configured one."""


class BestValidation:
    """The best score so far, and its step.

    Args:
        monitor: the metric that decides.
        mode: whether lower ("min") or higher ("max") is better; NaN is the worst.
    """

    def __init__(self, monitor: str, mode: Literal["min", "max"]) -> None:
        self.monitor, self.mode = monitor, mode
        self.score: float | None = None
        self.step: int | None = None

    def improved(self, trainer: lightning.Trainer) -> bool:
        """Whether the last validation is the best so far; if it is, remember its score and step.

        Raises:
            ValueError: validation computes no metric of the monitor's name.
        """
        metrics = trainer.callback_metrics
        if self.monitor not in metrics and WITHOUT_METRES in metrics:
            log.info(
                f"The best checkpoint is the one with the lowest {WITHOUT_METRES}: no ground truth allows "
                f"{self.monitor}."
            )
            self.monitor, self.mode = WITHOUT_METRES, "min"
        if self.monitor not in metrics:
            known = ", ".join(name for name in metrics if name.startswith("val/"))
            raise ValueError(
                f"callbacks.checkpoints.monitor={self.monitor} is not a validation metric. Choose one of: {known}."
            )
        score = float(trainer.strategy.broadcast(float(metrics[self.monitor])))
        if math.isnan(score):
            score = math.inf if self.mode == "min" else -math.inf
        better = self.score is None or (score < self.score if self.mode == "min" else score > self.score)
        if better:
            self.score, self.step = score, trainer.global_step
        return better

    def state_dict(self) -> dict[str, Any]:
        """The state saved in a checkpoint."""
        return {"monitor": self.monitor, "mode": self.mode, "best_score": self.score, "best_step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state, if it refers to the same metric and mode."""
        if state["monitor"] == WITHOUT_METRES or (state["monitor"], state["mode"]) == (self.monitor, self.mode):
            self.monitor, self.mode = state["monitor"], state["mode"]
            self.score, self.step = state["best_score"], state["best_step"]
