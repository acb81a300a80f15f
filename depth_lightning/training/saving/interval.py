"""How often a run is saved between its validations."""

import math
import time
from functools import partial

from depth_lightning.settings import number, optional, whole_number


class SavingInterval:
    """Saving is due after every n-th optimizer step of the run, and when n minutes have passed since `restart`.

    Raises:
        SettingError: an interval is not positive.
    """

    def __init__(self, every_n_steps: int | None, every_n_minutes: float | None) -> None:
        never = " null: only after every validation."
        steps = optional("every_n_steps", every_n_steps, partial(whole_number, otherwise=never))
        minutes = optional("every_n_minutes", every_n_minutes, partial(number, above=0, otherwise=never))
        self.steps, self.seconds = steps or math.inf, 60 * (minutes or math.inf)
        self.restart()

    def restart(self) -> None:
        """Count the minutes from now."""
        self._since = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether to save after `step` steps of the run."""
        return step % self.steps == 0 or time.monotonic() - self._since >= self.seconds
