"""The learning rates in the logs."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from depth_lightning.training.display.throughput import logs_next_step


class LearningRates(Callback):
    """Logs every group's learning rate under lr/<group>, in the row of the step that uses it.

    Lightning's LearningRateMonitor adds rows of its own, under the optimizer's name, and ends a run without loggers.
    """

    decisive = ()

    def on_before_optimizer_step(self, trainer: lightning.Trainer, module: Any, optimizer: Optimizer) -> None:
        """Log the rates that the coming step uses."""
        for group in optimizer.param_groups if logs_next_step(trainer) else []:
            rate = torch.tensor(group["lr"])  # a float would be copied to the device, and the host would wait
            module.log(f"lr/{group['name']}", rate, batch_size=1)
