"""Cost of a data set's size: start-up time and memory of its index; and samples per second by workers and processes.

Also compares small files with shards of the same samples from a local folder, and with files that answer late, as those
of a network drive or an object store do.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import cv2
import torch
from sample import write_frames
from timing import best_seconds, machine, parser, report

from depth_lightning.data import DepthDataModule, DepthPairs, DepthShards, NYUDepthV2
from depth_lightning.data.shard_format import INDEX, encode, write_index
from depth_lightning.data.transforms import EvaluationTransform, TrainTransform
from depth_lightning.reporting.tables import print_rows
from depth_lightning.sample import DepthDataset

HEADER = {"images": True, "data": False, "first, s": True, "again, s": True, "of processor": True}
HEADER |= {"index, MB": True, "copied by a worker, MB": True}
RATES = {"reading and transforming": False, "samples/s": True, "times one process": True}
PER_SCENE = 100
LATENCY_S = 0.02
LATE = f"files after {LATENCY_S * 1000:.0f} ms each"
WORKERS = (0, 1, 2, 4, 8)


def main() -> None:
    """Measure, print and save."""
    made = parser(__doc__, repeats=5)
    made.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000], help="sizes of the data set")
    made.add_argument("--samples", type=int, default=192, help="read per measurement of samples per second")
    chosen = made.parse_args()
    rows, values = [], dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        for count in chosen.images:
            for kind in ("pairs", "nyu"):
                root = Path(folder) / f"{kind}_{count}"
                write_empty(root, kind, count)
                times = [_in_fork(start_up, str(root), kind) for _ in range(1 + chosen.repeats)]
                first, again = times[0], min(times[1:], key=lambda timing: timing["seconds"])
                values[f"{kind} {count}"] = {"first": first, "again": again}
                row = [
                    f"{count:,}",
                    kind,
                    f"{first['seconds']:.2f}",
                    f"{again['seconds']:.2f}",
                    f"{again['processor_seconds']:.2f}",
                ]
                rows.append([*row, f"{again['index_mb']:.1f}", f"{again['copied_mb']:.1f}"])
        print_rows(f"Both splits of a data set of empty files: {machine()}", HEADER, [rows])
        rates = throughput(Path(folder) / "frames", chosen.samples, chosen.repeats)
    one = rates["files, workers 0"]
    rate_rows = [[name, f"{rate:.1f}", f"{rate / one:.2f}"] for name, rate in rates.items()]
    report("growth", RATES, rate_rows, {"start_up": values, "samples_per_second": rates})


def write_empty(root: Path, kind: str, count: int) -> None:
    """As many empty files as a data set of `count` training images has."""
    scenes = max(1, count // PER_SCENE)
    folders = ["{}/rgb/{:05d}.jpg", "{}/depth/{:05d}.png"] if kind == "pairs" else ["train/{}/{:05d}.h5"]
    for pattern in folders:
        for scene in range(scenes):
            (root / pattern.format(f"scene_{scene:04d}", 0)).parent.mkdir(parents=True)
            for number in range(PER_SCENE):
                (root / pattern.format(f"scene_{scene:04d}", number)).touch()
    if kind == "nyu":
        (root / "val" / "official").mkdir(parents=True)
        for number in range(654):
            (root / "val" / "official" / f"{number:05d}.h5").touch()


def start_up(root: str, kind: str) -> dict[str, float]:
    """Seconds to list both splits, memory of the training index, and memory copied by a worker that reads all of it."""
    started, computed = time.perf_counter(), time.process_time()
    if kind == "pairs":
        patterns = {"image": "{scene}/rgb/*.jpg", "depth": "{scene}/depth/*.png"}
        train = DepthPairs("train", root, **patterns)
        DepthPairs("val", root, **patterns)
        index_bytes, look = train.pairs.nbytes, train.pairs.__getitem__
    else:
        nyu = NYUDepthV2(root, "train")
        NYUDepthV2(root, "val")
        frames = nyu._frames
        index_bytes, look = frames.ids.nbytes + frames.scenes.nbytes, frames.ids.__getitem__
        train = nyu
    times = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - computed}
    return {**times, "index_mb": index_bytes / 1e6, "copied_mb": _copied_megabytes(look, len(train))}


def _in_fork(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work` in a forked process, which has the imports already."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(work, arguments)


def _copied_megabytes(look: Callable[[int], Any], count: int) -> float:
    """Private memory that a forked process gains by reading every entry, in MB."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        before = _private()
        for index in range(count):
            look(index)
        os.write(sender, str(_private() - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(receiver, 64)) / 1e6


def _private() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024.0 * int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean")))


def throughput(root: Path, samples: int, repeats: int) -> dict[str, float]:
    """Training samples per second by workers, by processes, and from shards."""
    write_frames(root)
    shards = {compress: root.with_name(f"shards_{compress}") for compress in (True, False)}
    for compress, folder in shards.items():
        pack(NYUDepthV2(root, "train"), folder, compress)
    runs = {
        f"{kind}, workers {workers}": _loading(root, kind, workers, samples)
        for kind in ("files", LATE)
        for workers in WORKERS
    }
    runs["shards of .npy, workers 0"] = _loading(shards[False], "shards", 0, samples)
    runs["shards of .png and .npz, workers 0"] = _loading(shards[True], "shards", 0, samples)
    rates = {name: samples / seconds for name, seconds in best_seconds(runs, repeats).items()}
    for processes in (1, 2):
        rates[f"files, processes {processes}"] = max(_processes(root, processes, samples) for _ in range(repeats))
    return rates


def pack(source: DepthDataset, folder: Path, compress: bool) -> None:
    """Write shards as commands.pack does, without Hydra."""
    from depth_lightning.commands.pack import split_folder, write_shards
    from depth_lightning.data.object_store import ObjectStore

    files = (encode(source[index], compress) for index in range(len(source)))
    store = ObjectStore(str(folder))
    with split_folder(store, "train") as split:
        shards = list(write_shards(files, "train", split, store, 256))
    (folder / INDEX).write_text(write_index({"train": shards}, {}))


class _Repeated:
    """A data set repeated as if it had `length` samples, each of which comes after a delay."""

    def __init__(self, source: DepthDataset, length: int, delay_s: float) -> None:
        self.source, self.length, self.delay_s = source, length, delay_s

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.delay_s)
        return self.source[index % len(self.source)]


def _loading(root: Path, kind: str, workers: int, samples: int) -> Callable[[], None]:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

    def open_split(split: str) -> _Repeated:
        opened = DepthShards(root, "train") if kind == "shards" else NYUDepthV2(root, "train")
        return _Repeated(opened, samples, LATENCY_S if kind == LATE else 0)

    data = DepthDataModule(open_split, TrainTransform(), EvaluationTransform(518), batch_size=8, num_workers=workers)
    data.setup("fit")
    loader = data.train_dataloader()  # its workers are persistent

    def read() -> None:
        assert sum(len(batch.id) for batch in loader) == samples

    return read


def _processes(root: Path, count: int, samples: int) -> float:
    """Samples per second of `count` processes together, each without workers, as in DDP with data.num_workers=0."""
    command = [sys.executable, __file__, "--read", str(root), str(samples)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return sum(samples / float(process.communicate()[0].splitlines()[-1]) for process in readers)


def read_alone(root: str, samples: int) -> float:
    """Seconds of processor-bound reading in this process, excluding start-up."""
    read = _loading(Path(root), "files", 0, samples)
    started = time.perf_counter()
    read()
    return time.perf_counter() - started


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        print(read_alone(sys.argv[2], int(sys.argv[3])))
    else:
        main()
