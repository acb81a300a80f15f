"""Kill training with SIGKILL at random moments, let `checkpoint=auto` go on, compare with a run that was never killed.

    python tests/kill_and_resume.py --kills 20 --seed 0 [--shards] [overrides of train.py]

A small network on rendered rooms, saving every other step, in a real process per run. With --shards the rooms come
packed from an S3 server on the loopback, through a cache that never holds them all; every other kill then waits for a
shard to be on its way. Exit status 1 if any run differs.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data.train_images=24", "data.val_images=5", "data.size=42")
SMALL = (
    *("experiment=rooms", "data.batch_size=2", "data.eval_batch_size=2", "data.num_workers=0"),
    *("trainer.accumulate_grad_batches=2", "trainer.max_epochs=3", "baseline=false"),
    *("trainer.log_every_n_steps=1", "trainer.deterministic=true", "+trainer.val_check_interval=0.5"),
    *("callbacks.panels.images=1", "callbacks.checkpoints.every_n_steps=2"),
)


def rooms(folder: Path) -> list[str]:
    """The overrides that name a training set of 24 rooms, rendered once."""
    return [*ROOMS, f"data.root={folder}"]


def shards(folder: Path, url: str) -> list[str]:
    """The same rooms, packed into the storage at `url`."""
    from object_server import BUCKET

    from depth_lightning.data.object_store import ObjectStore
    from depth_lightning.data.shard_format import INDEX, read_index

    root, window = f"s3://{BUCKET}/rooms", 2
    command = [sys.executable, "-m", "depth_lightning", "pack", "data=rooms", *rooms(folder / "rooms")]
    command += [f"output={root}", f"endpoint_url={url}", "shard_mb=0.03", f"hydra.run.dir={folder}/packing"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    splits = read_index(ObjectStore(root, url).read_text(INDEX), root)
    room_gb = (window + 2) * max(shard.bytes for split in splits.values() for shard in split) / 1e9
    given = ["data=shards", f"data.root={root}", f"data.endpoint_url={url}", "data.size=42", "data.crop=null"]
    return [*given, f"data.window={window}", f"data.cache={folder}/cache", f"data.cache_gb={room_gb}"]


def start(folder: Path, overrides: list[str]) -> subprocess.Popen[bytes]:
    """Start or go on with the run in `folder`."""
    command = [sys.executable, "train.py", *SMALL, *overrides, "checkpoint=auto", f"hydra.run.dir={folder}"]
    with (folder.parent / f"{folder.name}.txt").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(folder: Path, overrides: list[str]) -> None:
    """Run to the end.

    Raises:
        RuntimeError: the run ended otherwise.
    """
    status = start(folder, overrides).wait(timeout=900)
    if status:
        output = (folder.parent / f"{folder.name}.txt").read_text()
        raise RuntimeError(f"{folder.name} ended with status {status}:\n{output}")


def kill(
    folder: Path, overrides: list[str], after_s: float, fetching: Callable[[], bool] | None, wait: bool
) -> str | None:
    """Start the run and kill it `after_s` after it claimed its folder.

    Args:
        fetching: whether a shard is on its way; None where there are none.
        wait: kill it when the next one is.

    Returns:
        What it had come to; None if it was done before.
    """
    process = start(folder, overrides)
    while not (folder / "config.yaml").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(after_s)
    while wait and fetching and not fetching() and process.poll() is None:
        time.sleep(0.001)
    if process.poll() is not None:
        return None
    os.killpg(process.pid, signal.SIGKILL)
    on_its_way = ", a shard on its way" if fetching and fetching() else ""
    process.wait()
    checkpoints = folder / "checkpoints"
    partial = ", with a checkpoint half written" if list(checkpoints.glob(".partial-*")) else ""
    saved = step(checkpoints / "last.ckpt") if (checkpoints / "last.ckpt").exists() else 0
    metrics = folder / "metrics.csv"
    rows = len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0
    return f"step {saved} saved, {rows} rows logged{partial}{on_its_way}"


def step(path: Path) -> int:
    """The step that a checkpoint is of."""
    return int(torch.load(path, weights_only=True, mmap=True)["global_step"])


def differences(folder: Path, expected: Path) -> list[str]:
    """What differs between two finished runs: every value in their checkpoints, and their logs, to the last bit."""
    found = []
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (folder, expected))
        found += [f"{name} {place}" for place in unequal(a, b)]
    for name in ("metrics.csv", "table.csv"):
        if rows(folder / name) != rows(expected / name):
            found.append(name)
    pictures = [sorted(path.name for path in (run / "panels").iterdir()) for run in (folder, expected)]
    return found + (["panels"] if pictures[0] != pictures[1] else [])


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log, less how fast the run went."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def unequal(a: Any, b: Any, place: str = "") -> Iterator[str]:
    """Where two checkpoints differ; the folder's own name in the configuration does not count."""
    if place == "/config":
        return
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        for key in a:
            yield from unequal(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from unequal(*pair, f"{place}/{index}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or not torch.allclose(a, b, rtol=0, atol=0, equal_nan=True):
            yield place
    elif a != b:
        yield f"{place}: {a} instead of {b}"


def compare(folder: Path, overrides: list[str], kills: int, seed: int, fetching: Callable[[], bool] | None) -> int:
    """Kill and compare; how many runs differ, which stay in `folder`. Every other kill waits for a shard, if any."""
    expected, moments = folder / "expected", random.Random(seed)
    finish(expected, overrides)
    took_s = (expected / "metrics.json").stat().st_mtime - (expected / "config.yaml").stat().st_mtime
    print(f"never killed: {took_s:.1f} s, {step(expected / 'checkpoints/last.ckpt')} steps", flush=True)
    wrong = 0
    for number in range(kills):
        run, state = folder / f"killed_{number:02d}", None
        while state is None:
            shutil.rmtree(run, ignore_errors=True)
            after_s = moments.uniform(0, took_s)
            state = kill(run, overrides, after_s, fetching, wait=number % 2 == 0)
        finish(run, overrides)
        found = differences(run, expected)
        wrong += bool(found)
        verdict = f"DIFFERENT in {', '.join(found[:5])}" if found else "equal"
        print(f"{number + 1:2d}. killed after {after_s:5.2f} s, {state}: {verdict}", flush=True)
        if not found:
            shutil.rmtree(run)
    print(f"{kills - wrong} of {kills} equal")
    return wrong


def main() -> int:
    """How many runs differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="kept afterwards; by default a temporary one")
    parser.add_argument("--shards", action="store_true", help="the rooms come from object storage; needs moto")
    arguments, overrides = parser.parse_known_args()
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        data, fetching = rooms(folder / "rooms"), None
        if arguments.shards:
            from object_server import object_server, slowly

            server = stack.enter_context(object_server(slowly(0.02)))
            data, fetching = shards(folder, server.url), lambda: server.sending > 0
        return compare(folder, [*data, *overrides], arguments.kills, arguments.seed, fetching)


if __name__ == "__main__":
    sys.exit(min(1, main()))
