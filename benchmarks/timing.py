"""Shared by all benchmarks: fair timing, peak memory, and a table that names the machine."""

import argparse
import contextlib
import functools
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from depth_lightning.reporting.tables import print_rows, write_json

RESULTS = Path(__file__).parent / "results"


def best_seconds(candidates: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, float]:
    """The shortest time of each candidate, called in turns, so that other load on the machine affects all alike."""
    best = dict.fromkeys(candidates, float("inf"))
    for turn in range(warmup + repeats):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if turn >= warmup:
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def best_seconds_apart(
    make: Callable[..., Callable[[], Any]], candidates: Mapping[str, tuple[Any, ...]], repeats: int, warmup: int = 1
) -> dict[str, float]:
    """`best_seconds` of what `make` returns for each candidate's arguments, each in a separate process.

    Process-wide settings, such as the allocator's, then affect no other candidate. `make` is a module-level function.
    """
    context = multiprocessing.get_context("spawn")
    connections = {}
    for name, arguments in candidates.items():
        connections[name], answering = context.Pipe()
        context.Process(target=_answer, args=(answering, make, arguments), daemon=True).start()
        answering.close()
        connections[name].recv()  # wait until it is ready
    best = best_seconds(
        {name: functools.partial(_ask, connection) for name, connection in connections.items()}, repeats, warmup
    )
    for connection in connections.values():
        connection.close()
    return best


def _ask(connection: Any) -> None:
    connection.send(None)
    connection.recv()


def _answer(connection: Any, make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    run = make(*arguments)
    connection.send(None)
    with contextlib.suppress(EOFError):  # the other end is closed
        while True:
            connection.recv()
            run()
            connection.send(None)


def in_fresh_process(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """The result of `work` in a new process, and that process's increase of peak memory in GB during the call.

    `work` is a module-level function.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        result, gigabytes = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{work.__name__}{arguments} ended with exit status {process.exitcode}.") from None
    process.join()
    return result, gigabytes


def _report(sender: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    before = _peak_gigabytes()
    result = work(*arguments)
    sender.send((result, _peak_gigabytes() - before))


def _peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def machine() -> str:
    """The processor, its cores, the GPU if there is one, and the versions that decide speed."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [
            line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    parts = [f"{name}, {len(os.sched_getaffinity(0))} cores"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join([*parts, f"Python {platform.python_version()}", f"torch {torch.__version__}"])


def report(name: str, header: Mapping[str, bool], rows: list[list[str]], values: Mapping[str, Any]) -> None:
    """Print the rows under the machine's name, and save the plain values in results/<name>.json."""
    print_rows(f"{name}: {machine()}", header, [rows])
    write_json(RESULTS / f"{name}.json", {"machine": machine(), **values})


def parser(description: str | None, repeats: int | None = None) -> argparse.ArgumentParser:
    """A parser that shows defaults, with `--repeats` if it is to have it."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if repeats is not None:
        made.add_argument("--repeats", type=int, default=repeats, help="timed turns; the best one counts")
    return made
