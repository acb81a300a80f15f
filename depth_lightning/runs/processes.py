"""How many processes a trainer may start, checked before any of them waits for the others."""

import logging
import os
from collections.abc import Mapping
from typing import Any, Final

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from depth_lightning.settings import SettingError

log = logging.getLogger(__name__)

FEW: Final = 4
"""Processes that any CPU may run, such as for a test, even if it has fewer cores."""
LAUNCHERS: Final = ("MASTER_ADDR", "TORCHELASTIC_RUN_ID", "LSB_DJOB_RANKFILE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Variables with which torchrun, LSF, MPI or a user tell a process about the others."""


def own_share() -> tuple[int, int]:
    """Which of how many equal shares of the work is this process's: of torchrun, srun, a SLURM array, or both.

    Raises:
        ValueError: the array's numbers are not evenly spaced.
    """
    number, count = _environment("RANK", "SLURM_PROCID", 0), _environment("WORLD_SIZE", "SLURM_NTASKS", 1)
    if (
        "SLURM_ARRAY_TASK_ID" not in os.environ or "SUBMITIT_EXECUTOR" in os.environ
    ):  # a sweep: each job has its own work
        return number, count
    first, last, step, tasks, task = (
        int(os.environ.get(f"SLURM_ARRAY_TASK_{name}", 1)) for name in ("MIN", "MAX", "STEP", "COUNT", "ID")
    )
    if (last - first) // step + 1 != tasks:
        raise ValueError(f"The SLURM array has {tasks} tasks from {first} to {last}. Number them evenly: --array=0-7")
    return (task - first) // step * count + number, tasks * count


def own_device() -> str | None:
    """The GPU of this process among several that were started on this machine; None if it is the only one."""
    local = _environment("LOCAL_RANK", "SLURM_LOCALID", 0)
    return f"cuda:{local % torch.cuda.device_count()}" if local and torch.cuda.is_available() else None


def _environment(torchrun: str, slurm: str, otherwise: int) -> int:
    slurms = os.environ.get(slurm, otherwise) if "SLURM_PROCID" in os.environ else otherwise
    return int(os.environ.get(torchrun, slurms))


def check_processes(trainer: Mapping[str, Any]) -> None:
    """Check that the devices exist, and that the processes of several nodes can find one another.

    Args:
        trainer: the arguments of Lightning's trainer.

    Raises:
        SettingError: `devices` or `num_nodes` cannot be right.
    """
    accelerator, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    cuda = accelerator != "cpu" and torch.cuda.is_available()
    if cuda:
        _check_gpus(devices)
    elif accelerator != "mps" and not (accelerator == "auto" and torch.backends.mps.is_available()):
        _check_cpu(devices)
    nodes = trainer.get("num_nodes", 1)
    if nodes == 1:
        return
    if not any(name in os.environ for name in LAUNCHERS) and not SLURMEnvironment.detect():
        raise SettingError(
            "trainer.num_nodes",
            f"is {nodes}, but this process was started alone. Start it on every node, by torchrun --nnodes={nodes} "
            "--nproc-per-node=… --rdzv-backend=c10d --rdzv-endpoint=<first node>:29500 -m depth_lightning train …, or "
            "in a SLURM job by srun. For this machine alone, leave out trainer.num_nodes.",
        )
    rank_zero_only(log.info)(f"The {nodes} nodes have half an hour to find one another.")


def _check_gpus(devices: Any) -> None:
    count = torch.cuda.device_count()
    chosen = _numbers(devices) if isinstance(devices, list) or "," in str(devices) else []
    asked = int(devices) if not chosen and str(devices).isdigit() else 1
    elastic = "TORCHELASTIC_RUN_ID" in os.environ and count == 1  # which may show each process a GPU of its own
    if (asked > count or any(number >= count for number in chosen)) and not elastic:
        what = f"1 to {count}" if count > 1 else "1"
        raise SettingError("trainer.devices", f"is {what} with the GPUs that torch sees here, found {devices!r}.")


def _numbers(devices: Any) -> list[int]:
    parts = devices if isinstance(devices, list) else str(devices).split(",")
    return [int(part) for part in parts if str(part).strip()]


def _check_cpu(devices: Any) -> None:
    cores = os.cpu_count() or 1
    most = max(FEW, cores)
    if devices == "auto" or (str(devices).isdigit() and 1 <= int(devices) <= most):
        return
    raise SettingError(
        "trainer.devices",
        f"is the number of processes where there is no GPU, 1 to {most} with {cores} cores, found {devices!r}.",
    )
