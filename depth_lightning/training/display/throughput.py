"""How fast a run trains, how long it waits for data, and how much GPU memory it uses."""

import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor


def logs_next_step(trainer: lightning.Trainer) -> bool:
    """Whether Lightning logs after the coming optimizer step. What is logged before others costs time, and is lost."""
    return bool((trainer.global_step + 1) % trainer.log_every_n_steps == 0)  # type: ignore[attr-defined]


def logs_step(trainer: lightning.Trainer, batch_index: int) -> bool:
    """Whether Lightning logs after this training batch, and so waits for the device."""
    steps = (batch_index + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
    return steps and trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]


class Throughput(Callback):
    """Logs under time/, averaged over the steps since the last log, excluding validation.

    - time/images_per_s: over all processes.
    - time/data_wait_share: share of the time, in [0, 1], that the first process waited for a batch. If it is more than
      a few percent, raise data.num_workers.
    - time/gpu_memory_gib: peak memory of tensors so far, on the first process's GPU.

    Only clocks are read; the host never waits for the device, as it does in Lightning's ThroughputMonitor after every
    batch.
    """

    decisive = ()

    def __init__(self) -> None:
        self._since = self._waited_s = self._paused_at = self._paused_waited_s = 0.0
        self._images = 0
        self._paused = True

    def on_train_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Reset the counters; the clock starts with the first batch."""
        self._begin(trainer)
        self._pause(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, module: Any) -> None:
        """Stop the clock."""
        self._pause(trainer)

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        """Restart the clock once the first batch is available."""
        if self._paused:
            self._paused = False
            self._since += time.monotonic() - self._paused_at
            self._waited_s += _waited_s(trainer) - self._paused_waited_s

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Count the images, and log whenever Lightning does."""
        self._images += len(batch.image) * trainer.world_size
        if not logs_step(trainer, batch_index):
            return
        elapsed_s = max(time.monotonic() - self._since, 1e-9)
        values = {
            "time/images_per_s": self._images / elapsed_s,
            "time/data_wait_share": (_waited_s(trainer) - self._waited_s) / elapsed_s,
        }
        if module.device.type == "cuda":
            values["time/gpu_memory_gib"] = torch.cuda.max_memory_allocated(module.device) / 2**30
        module.log_dict(on_host(values), batch_size=1)
        self._begin(trainer)

    def _begin(self, trainer: lightning.Trainer) -> None:
        self._since, self._waited_s, self._images = time.monotonic(), _waited_s(trainer), 0

    def _pause(self, trainer: lightning.Trainer) -> None:
        self._paused, self._paused_at, self._paused_waited_s = True, time.monotonic(), _waited_s(trainer)


def on_host(values: dict[str, float]) -> dict[str, Tensor]:
    """Values as CPU tensors, which Lightning logs without copying them to the device and waiting for it."""
    return {name: torch.tensor(value) for name, value in values.items()}


def _waited_s(trainer: lightning.Trainer) -> float:
    return float(getattr(trainer.train_dataloader, "waited_s", 0.0))
