"""Watches every step: a bad step is skipped and recorded, and ends the run if so configured.

The verdict on a step is computed on the device, from the loss averaged over all processes and the gradients after the
all-reduce, so that all processes agree. The cost:

- an optimizer with a fused kernel, such as `adamw` on a GPU, receives the verdict on the device, as it would receive a
  GradScaler's `found_inf`, and skips the step there. The host reads it one step later and never waits for the device.
  Recording the step or ending the run happens one step late, with the weights still those from before the bad step;
- with a loss scaler, the host reads the verdict where the scaler makes it wait anyway;
- with any other optimizer, the host waits for the device once per step.
"""

import logging
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from torch import Tensor
from torch.optim import Optimizer

from depth_lightning.sample import DepthBatch
from depth_lightning.settings import number, one_of, optional, text, whole_number
from depth_lightning.training.display.learning_rates import rates_by_part
from depth_lightning.training.display.throughput import logs_next_step
from depth_lightning.training.health.incident import Circumstances, replay_command, room_for, write_incident
from depth_lightning.training.health.inspection import Findings, inspect_step
from depth_lightning.training.module import DepthModule
from depth_lightning.training.sharding import full_tensor, is_sharded

log = logging.getLogger(__name__)
OnBadStep = Literal["skip", "stop"]

MIN_HISTORY = 20
"""Steps needed before a jump of the loss can be detected."""
MAX_SKIPPED_SHARE = 0.1
"""Of the last `window` steps; if more of them are skipped, the run is not learning."""
_LOSS, _GRADIENT, _JUMP = 1, 2, 3


class StoppedByWatchError(ValueError):
    """A step went wrong, and the run ended before applying it."""


class _Step(NamedTuple):
    """A step whose verdict may not have arrived from the device yet."""

    step: int
    epoch: int
    numbers: Tensor
    """(4,) on the host: verdict, loss, gradient norm, median of the previous losses."""
    arrived: torch.cuda.Event | None
    own_loss: Tensor
    batches: Sequence[DepthBatch]
    learning_rates: dict[str, float]
    loss_scale: float

    def read(self) -> list[float]:
        if self.arrived is not None:
            self.arrived.synchronize()
        return cast(list[float], self.numbers.tolist())


class Watch(Callback):
    """Skips steps whose loss or gradient is not finite, or whose loss jumps; logs the gradient norm before clipping.

    A skipped step changes neither the weights nor the optimizer state, but the schedule advances, and the step and its
    samples count. Gradients that overflow at a loss scale above 1 are left to the fp16 scaler, which handles them
    itself; the loss is computed before scaling, so the scaler never makes it non-finite. If the loss jumps and stays
    high, steps are skipped until the run ends (see `on_bad_step`): the weights no longer change, so the data must have.

    Args:
        folder: for the records, one folder per step.
        on_bad_step: "skip" it and continue, until more than a tenth of the last `window` steps were skipped; or "stop".
        jump_factor: a loss above this many times the median of the last `window` losses is a jump; None: no loss is.
        window: in steps.
        max_incidents: most steps recorded in `folder`; each record is about as large as the weights.

    Raises:
        SettingError: an argument is out of range.
    """

    decisive = ("jump_factor", "window")  # a run stopped by on_bad_step=stop may resume and skip the step

    def __init__(
        self,
        folder: str | Path,
        on_bad_step: OnBadStep = "skip",
        jump_factor: float | None = 10.0,
        window: int = 100,
        max_incidents: int = 3,
    ) -> None:
        self.folder = Path(text("folder", folder, "a path"))
        self.on_bad_step = one_of("on_bad_step", on_bad_step, get_args(OnBadStep))
        above_1 = partial(number, above=1, otherwise=" null: no loss counts as a jump.")
        self.jump_factor = optional("jump_factor", jump_factor, above_1)
        self.window = whole_number("window", window, least=MIN_HISTORY)
        self.max_incidents = whole_number("max_incidents", max_incidents, least=0)
        self._history = torch.full((window,), torch.nan)
        """The last losses; NaN where there is none yet or it was not finite."""
        self._seen = 0
        self._skipped: list[int] = []
        self._batches: list[DepthBatch] = []
        self._losses: list[Tensor] = []
        self._pending: _Step | None = None

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: DepthBatch, index: int) -> None:
        """Keep the batches of a step until its verdict is known."""
        self._batches.append(batch)

    def on_before_backward(self, trainer: lightning.Trainer, module: Any, loss: Tensor) -> None:
        """Keep the loss, which is already scaled and divided by the number of accumulated batches."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer: lightning.Trainer, module: Any, optimizer: Optimizer) -> None:
        """Judge the step, and skip it if it is bad."""
        self._settle(trainer, module)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        step = self._judge(trainer, module, optimizer, 1.0 if scaler is None else scaler.get_scale())
        self._batches, self._losses = [], []
        self._pending = step
        if scaler is None and all(group.get("fused") for group in optimizer.param_groups):
            return
        if scaler is not None and step.read()[0] == _GRADIENT and step.loss_scale > 1:
            self._pending = None  # the scaler skips it and halves its scale
        elif self._settle(trainer, module):
            # Without gradients, an optimizer changes nothing: no moments, no weight decay, no step count.
            optimizer.zero_grad(set_to_none=True)

    def on_train_end(self, trainer: lightning.Trainer, module: Any) -> None:
        """Act on the last step's verdict."""
        self._settle(trainer, module)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next verdicts depend on."""
        skipped = list(self._skipped)
        if self._pending is not None and self._pending.read()[0]:
            skipped.append(self._pending.step)
        return {"history": self._history.to("cpu", copy=True), "seen": self._seen, "skipped": skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; if `window` has changed, as much of the history as fits."""
        history, seen = state_dict["history"].clone(), state_dict["seen"]
        if len(history) != self.window:
            in_order = torch.cat([history[seen % len(history) :], history[: seen % len(history)]])
            kept = in_order[in_order.isfinite()][-self.window :]
            history = torch.cat([kept, torch.full((self.window - len(kept),), torch.nan)])
            seen = len(kept)
        self._history, self._seen, self._skipped = history, seen, list(state_dict["skipped"])

    def _judge(self, trainer: lightning.Trainer, module: DepthModule, optimizer: Optimizer, loss_scale: float) -> _Step:
        own_loss = torch.stack(self._losses).sum().float() / loss_scale
        loss = trainer.strategy.reduce(own_loss.clone(), reduce_op="mean")
        assert isinstance(loss, Tensor)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = full_tensor(torch.nn.utils.get_total_norm(gradients)).float()
        if logs_next_step(trainer):
            module.log("train/gradient_norm", norm, batch_size=1)
        self._history = self._history.to(loss.device)
        median = self._history.nanmedian() if self._seen >= MIN_HISTORY else torch.full_like(loss, torch.nan)
        limit = torch.where(median > 0, median * (self.jump_factor or torch.inf), torch.inf)
        verdict = torch.where(loss > limit, _JUMP, 0)
        verdict = torch.where(norm.isfinite(), verdict, _GRADIENT)
        verdict = torch.where(loss.isfinite(), verdict, _LOSS)
        self._history[self._seen % self.window] = torch.where(loss.isfinite(), loss, torch.nan)
        self._seen += 1
        if all(group.get("fused") for group in optimizer.param_groups):
            optimizer.found_inf = (verdict > 0).float()  # type: ignore[attr-defined]
        numbers, arrived = torch.stack([verdict.float(), loss, norm, median]), None
        if numbers.is_cuda:
            host = torch.empty(numbers.shape, pin_memory=True)
            numbers, arrived = host.copy_(numbers, non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
        rates = rates_by_part(optimizer)
        return _Step(
            trainer.global_step, trainer.current_epoch, numbers, arrived, own_loss, self._batches, rates, loss_scale
        )

    def _settle(self, trainer: lightning.Trainer, module: DepthModule) -> bool:
        """Read the verdict on the pending step and act on it; returns whether it was bad, equal on all processes."""
        step, self._pending = self._pending, None
        if step is None:
            return False
        verdict, loss, norm, median = step.read()
        if not verdict:
            return False
        self._skipped = [number for number in self._skipped if number > step.step - self.window] + [step.step]
        reason = {
            _LOSS: f"the loss is {loss}",
            _GRADIENT: f"the loss is {loss:.4g}, and its gradient is not finite",
            _JUMP: f"the loss is {loss:.4g}, {loss / median:.0f} times the median of the previous steps, {median:.4g}",
        }[int(verdict)]
        report = self._record(trainer, module, step, reason, loss, norm, median)
        too_many = len(self._skipped) > MAX_SKIPPED_SHARE * self.window
        if self.on_bad_step == "skip" and not too_many:
            rank_zero_only(log.warning)(f"Step {step.step} is skipped: {reason}.{report}")
            return True
        if trainer.global_rank:
            sys.exit(1)  # the first process reports why
        why = f"{len(self._skipped)} of the last {self.window} steps went wrong, this one because " if too_many else ""
        hint = "" if too_many else " To skip such steps: callbacks.watch.on_bad_step=skip"
        raise StoppedByWatchError(
            f"The run ends at step {step.step}: {why}{reason}. The weights are those from before it.{hint}{report}"
        )

    def _record(
        self,
        trainer: lightning.Trainer,
        module: DepthModule,
        step: _Step,
        reason: str,
        loss: float,
        norm: float,
        median: float,
    ) -> str:
        """Have the culprit process record its part; returns a report in indented lines, equal on all processes."""
        assert module.objective is not None
        if is_sharded(module.network):
            return "\n  Not recorded: the network is sharded over the processes; trainer=ddp records such steps."
        try:
            findings, predictions = inspect_step(
                module.network, module.objective, step.batches, str(trainer.precision), step.loss_scale
            )
        except torch.OutOfMemoryError:
            findings = Findings(inputs_not_finite=["There was not enough memory to inspect the step."])
            predictions = [torch.full_like(batch.target, torch.nan) for batch in step.batches]
        losses = _of_all(trainer, step.own_loss)
        culprit = _culprit(losses, _of_all(trainer, torch.tensor(float(findings.finite))))
        report = ""
        if trainer.global_rank == culprit:
            circumstances = Circumstances(
                reason=reason,
                step=step.step,
                epoch=step.epoch,
                rank=culprit,
                world_size=trainer.world_size,
                loss=loss,
                loss_by_process=losses,
                gradient_norm=norm,
                median_loss=median,
                learning_rates=step.learning_rates,
                precision=str(trainer.precision),
                loss_scale=step.loss_scale,
                device=str(module.device),
            )
            outcome = self._write(circumstances, findings, module, step.batches, predictions)
            report = "".join(f"\n  {sentence}" for sentence in (*findings.origin(), outcome))
        # The others wait for it: when one process exits, all are killed, and the record would be incomplete.
        return trainer.strategy.broadcast(report, src=culprit)

    def _write(
        self,
        circumstances: Circumstances,
        findings: Findings,
        module: DepthModule,
        batches: Sequence[DepthBatch],
        predictions: Sequence[Tensor],
    ) -> str:
        """Write the record if there is space for it; returns a line that reports the outcome."""
        folder = self.folder / f"step_{circumstances.step:06d}"
        if folder.exists():
            return f"Recorded before: {replay_command(folder)}"
        if len(list(self.folder.glob("step_*"))) >= self.max_incidents:
            return f"Not recorded: there are callbacks.watch.max_incidents={self.max_incidents} records already."
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not room_for(self.folder, module.network, batches):
                return f"Not recorded: not enough space on the disk of {self.folder}."
            write_incident(folder, circumstances, findings, module.network, batches, predictions, module.config)
        except (OSError, SafetensorError) as error:
            return f"Not recorded: {error}"
        return f"To replay it: {replay_command(folder)}"


def _of_all(trainer: lightning.Trainer, value: Tensor) -> list[float]:
    """The values of all processes in rank order, on every process."""
    values = torch.zeros(trainer.world_size, device=trainer.strategy.root_device)
    values[trainer.global_rank] = value
    return cast(Tensor, trainer.strategy.reduce(values, reduce_op="sum")).tolist()


def _culprit(losses: Sequence[float], finite: Sequence[float]) -> int:
    """The first rank whose batches break when inspected; else whose loss was not finite; else with the largest loss."""
    broken = [rank for rank, value in enumerate(finite) if not value]
    broken += [rank for rank, loss in enumerate(losses) if not math.isfinite(loss)]
    return broken[0] if broken else max(range(len(losses)), key=losses.__getitem__)
