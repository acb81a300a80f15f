"""Find the largest batch size of a training run that fits into memory, trying each size in a process of its own.

depth-lightning batch-size model=… trainer=… data=…
"""

import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.memory import is_oom_error
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, IterableDataset

from depth_lightning.interrupts import interrupts_held
from depth_lightning.runs import objects
from depth_lightning.runs.host_memory import keep_freed_memory
from depth_lightning.runs.job import EXPECTED_ERRORS, quiet, run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.precision import exact_float32, settle_precision
from depth_lightning.runs.program import program
from depth_lightning.sample import DepthBatch, DepthSample, collate
from depth_lightning.training.averaging import AveragedWeights

log = logging.getLogger(__name__)

STEPS = 3
"""Steps of each trial. The optimizer state exists from the second step on, and the first step is not timed."""


class Fit(NamedTuple):
    """Memory and speed of a batch size that fits."""

    memory_gib: float
    images_per_s: float


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(search, cfg, lambda cfg: "The sizes that were tried are above. To try the others, repeat the command.")


def search(cfg: DictConfig) -> int:
    """Log a line for each batch size that is tried, and what to type for the largest that fits; return that size.

    Raises:
        OSError, ValueError: the first sample, which the batches repeat, cannot be read.
        ValueError: no memory limit is given without a GPU, the network is sharded, or not even one image fits.
    """
    check(cfg, "batch_size")
    on_gpu = cfg.trainer.accelerator != "cpu" and torch.cuda.is_available()
    if not on_gpu and (cfg.memory_gib is None or sys.platform != "linux"):
        raise ValueError(
            "Without a CUDA GPU, memory_gib must say how much memory training may use, and the system must be Linux."
        )
    if not isinstance(cfg.trainer.strategy, str):
        raise ValueError("trainer.strategy: the memory of a sharded network cannot be measured. Use trainer=ddp.")
    settle_precision(cfg)
    settings, sample = objects.plain(cfg), objects.build_data(cfg).train_data[0]

    def attempt(batch_size: int) -> bool:
        fit = in_own_process(settings, sample, batch_size)
        result = f"{fit.memory_gib:.2f} GiB, {fit.images_per_s:.3g} images/s" if fit else "out of memory"
        log.info(f"data.batch_size={batch_size}: {result}")
        return fit is not None

    largest = largest_that(attempt, cfg.max_batch_size)
    if largest == 0:
        raise ValueError(
            "Not one image fits into the memory. To use less, choose a smaller data.crop or model, trainer=bf16, "
            "model.recompute_blocks=true or model.freeze_encoder=true."
        )
    reason = "the limit set by max_batch_size" if largest == cfg.max_batch_size else "and one more does not fit"
    log.info(f"The largest is data.batch_size={largest}, {reason}.")
    return largest


def largest_that(fits: Callable[[int], bool], limit: int) -> int:
    """The largest size up to `limit` that fits, 0 if none does: doubled until one does not fit, then bisected."""
    good, bad = 0, limit + 1
    while bad - good > 1:
        size = min(2 * good or 1, limit) if bad > limit else (good + bad) // 2
        if fits(size):
            good = size
        else:
            bad = size
    return good


def in_own_process(settings: dict[str, Any], sample: DepthSample, batch_size: int) -> Fit | None:
    """`train_steps` in a new process, so that no memory stays allocated or fragmented; None if out of memory."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, settings, sample, batch_size), daemon=True)
    resource_tracker.ensure_running()  # not within, where its start would let interrupts through
    with interrupts_held():  # this process handles Ctrl-C
        process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode is not None and process.exitcode < 0:  # killed by a signal, of the system or a library
            return None
        raise RuntimeError(f"A step with data.batch_size={batch_size} failed, see above.") from None
    process.join()
    if isinstance(answer, Exception):
        raise answer
    return cast(Fit | None, answer)


def _send(sender: Connection, settings: dict[str, Any], sample: DepthSample, batch_size: int) -> None:
    quiet()
    warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
    keep_freed_memory()
    exact_float32()
    try:
        sender.send(train_steps(OmegaConf.create(settings), sample, batch_size))
    except EXPECTED_ERRORS as error:
        sender.send(error)
    except MemoryError:
        sender.send(None)
    except RuntimeError as error:
        if not (is_oom_error(error) or "could not create a primitive" in str(error)):  # oneDNN's words for it, on a CPU
            raise
        sender.send(None)


def train_steps(cfg: DictConfig, sample: DepthSample, batch_size: int) -> Fit:
    """Train a few steps on copies of `sample` as configured by `cfg`, but with random weights and without saving.

    Raises:
        RuntimeError, MemoryError: out of memory, of the GPU or within `memory_gib`.
    """
    one_device = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    no_validation = {"limit_val_batches": 0, "num_sanity_val_steps": 0, "enable_checkpointing": False}
    steps = {"max_epochs": -1, "max_steps": STEPS, "limit_train_batches": 1.0}
    # With accumulation, the gradients of one batch are kept during the next; more than two make no difference.
    steps["accumulate_grad_batches"] = min(2, cfg.trainer.accumulate_grad_batches)
    network = objects.build_network(cfg.model, cfg.get("adapter"))
    module = objects.build_module(cfg, network)
    if cfg.compile:
        network.compile()
    batch = collate([sample] * batch_size)
    clock = _Clock()
    averages = [each for each in objects.build_all(cfg, "callbacks").values() if isinstance(each, AveragedWeights)]
    several = cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1
    cfg = cast(DictConfig, OmegaConf.merge(cfg, {"trainer": {**one_device, **no_validation, **steps}}))
    trainer = objects.build_trainer(cfg, [clock, *averages], [])
    if (scaler := getattr(trainer.precision_plugin, "scaler", None)) is not None:
        scaler.load_state_dict({**scaler.state_dict(), "scale": 1.0})  # no step is skipped, so the optimizer has state
    device = trainer.strategy.root_device
    _limit_memory(device, cfg.memory_gib)
    before = _peak_gib(device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    buckets = [torch.empty_like(each, device=device) for each in trained if several]  # DDP's copy of the gradients
    trainer.fit(module, DataLoader(Repeated(batch), batch_size=None))
    del buckets
    return Fit(_peak_gib(device) - before, clock.images_per_s)


class Repeated(IterableDataset[DepthBatch]):
    """One batch in memory, repeated forever."""

    def __init__(self, batch: DepthBatch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[DepthBatch]:
        while True:
            yield self.batch


class _Clock(Callback):
    """Images per second from the end of the first optimizer step to that of the last."""

    def __init__(self) -> None:
        self.images, self.started, self.images_per_s = 0, 0.0, 0.0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: DepthBatch, batch_index: int
    ) -> None:
        """Read the clock when the device is idle."""
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        if trainer.global_step == 0:
            return
        if not self.started:
            self.started = time.perf_counter()
        else:
            self.images += len(batch.image)
            self.images_per_s = self.images / (time.perf_counter() - self.started)


def _limit_memory(device: torch.device, gib: float | None) -> None:
    """Make allocations beyond `gib` fail.

    Raises:
        ValueError: the GPU has less memory.
    """
    if gib is None:
        return
    if device.type == "cuda":
        total_gib = torch.cuda.get_device_properties(device).total_memory / 2**30
        if gib > total_gib:
            raise ValueError(f"memory_gib={gib}: this GPU has {total_gib:.1f} GiB.")
        torch.cuda.set_per_process_memory_fraction(gib / total_gib, device)
    else:
        import resource  # not on Windows, where `search` requires a GPU

        resource.setrlimit(resource.RLIMIT_DATA, (_status_kib("VmData") * 2**10 + int(gib * 2**30), -1))


def _peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    return _status_kib("VmHWM") / 2**20


def _status_kib(name: str) -> int:
    """An entry of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    program("batch_size")
