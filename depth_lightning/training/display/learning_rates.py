"""The learning rates in the logs, and the table of parameter groups."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from depth_lightning.reporting.tables import print_rows
from depth_lightning.training.display.throughput import logs_next_step


def rates_by_part(optimizer: Optimizer) -> dict[str, float]:
    """The rate of every group; of a part of the network that is divided into groups, the largest."""
    rates: dict[str, float] = {}
    for number, group in enumerate(optimizer.param_groups):
        part = group.get("part", group.get("name", str(number)))
        rates[part] = max(float(group["lr"]), rates.get(part, 0.0))
    return rates


class LearningRates(Callback):
    """Logs the learning rates under lr/<group>, in the row of the step that uses them, and prints many groups once.

    Of a part of the network that is divided into groups, lr/<part> is the largest rate; the others are in proportion.
    Lightning's LearningRateMonitor adds rows of its own, under the optimizer's name, and ends a run without loggers.
    """

    decisive = ()

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Print the groups if there are more than two."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if len(groups) > 2 and trainer.is_global_zero:
            rows = [
                [
                    str(group.get("name", number)),
                    f"{sum(parameter.numel() for parameter in group['params']):,}",
                    f"{group.get('initial_lr', group['lr']):.3g}",
                    f"{group.get('weight_decay', 0):g}",
                ]
                for number, group in enumerate(groups)
            ]
            header = {"group": False, "parameters": True, "learning rate": True, "weight decay": True}
            print_rows("Parameter groups", header, [rows], ["The rates are those at the schedule's highest."])

    def on_before_optimizer_step(self, trainer: lightning.Trainer, module: Any, optimizer: Optimizer) -> None:
        """Log the rates that the coming step uses."""
        for name, rate in rates_by_part(optimizer).items() if logs_next_step(trainer) else []:
            # A float would be copied to the device, and the host would wait.
            module.log(f"lr/{name}", torch.tensor(rate), batch_size=1)
