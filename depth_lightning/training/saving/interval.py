"""How often a run is saved between its validations."""

import math
import time


class SavingInterval:
    """Due after every n-th optimizer step of the run, and when n minutes have passed since `restart`.

    Raises:
        ValueError: an interval is not positive.
    """

    def __init__(self, every_n_steps: int | None, every_n_minutes: float | None) -> None:
        for name, interval in (("every_n_steps", every_n_steps), ("every_n_minutes", every_n_minutes)):
            if interval is not None and not interval > 0:
                raise ValueError(f"callbacks.checkpoints.{name} is above 0, or null for never; found {interval}.")
        self.steps, self.seconds = every_n_steps or math.inf, 60 * (every_n_minutes or math.inf)
        self.restart()

    def restart(self) -> None:
        """Count the minutes from now."""
        self._since = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to save after `step` steps of the run."""
        return step % self.steps == 0 or time.monotonic() - self._since >= self.seconds
