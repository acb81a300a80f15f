"""Speed and memory on one CUDA GPU: the rows that matter most first, within a time limit, saved as they come.

    python benchmarks/gpu.py --minutes 8
    python benchmarks/gpu.py --only training lightning --encoders vits

`--device cpu` runs every row at toy size, to check that none is broken; its numbers are meaningless.
"""

import argparse
import gc
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.memory import is_oom_error
from memory import largest_batch, peak_gigabytes
from peers import TransformersDepth
from runs import composed
from sample import write_frames
from timing import RESULTS, machine
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from depth_lightning.commands.batch_size import Repeated
from depth_lightning.losses import SiLogLoss
from depth_lightning.metrics import DepthMetrics, Protocol
from depth_lightning.models import DepthAnythingV2, LoRA, normalize, save_weights
from depth_lightning.reporting.tables import write_json
from depth_lightning.runs import objects
from depth_lightning.runs.job import quiet
from depth_lightning.runs.program import CONF
from depth_lightning.sample import DepthBatch, DepthKind, collate
from depth_lightning.training import DepthModule
from depth_lightning.training.optimizer import adamw

PEAK_TFLOPS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L4": 121, "RTX 4090": 165}
"""Dense bfloat16 TFLOPS from the vendors' data sheets; the first key contained in the GPU's name applies."""
PRECISIONS = {"float32": None, "TF32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
COLUMNS = ("images/s", "ratio", "of peak", "peak GB", "")


class Row(NamedTuple):
    """One line of the table."""

    group: str
    name: str
    seconds: float
    """About how long it takes on an H100; with less time left it is passed over."""
    measure: Callable[[], dict[str, Any]]
    """images_per_s, gigabytes and others."""
    reference: str | None = None
    """The row whose images per second the ratio divides by."""


class Bench:
    """Sizes, data and counted FLOPs that the rows share."""

    def __init__(self, chosen: argparse.Namespace, root: Path) -> None:
        self.device, self.size, self.batch_size = torch.device(chosen.device), chosen.size, chosen.batch_size
        self.slice_s, self.steps, self.workers = chosen.slice, chosen.steps, chosen.workers
        self.photos, self.root = chosen.photos, root
        self._flops: dict[str, float] = {}

    def image(self) -> Tensor:
        """A normalised batch."""
        return torch.randn(self.batch_size, 3, self.size, self.size, device=self.device)

    def truth(self) -> tuple[Tensor, Tensor]:
        """Depth in metres with holes, and its mask."""
        depth_m = torch.rand(self.batch_size, self.size, self.size, device=self.device) * 9 + 0.5
        return depth_m, depth_m < 8

    def forward_flops(self, encoder: str) -> float:
        """FLOPs of one image's forward pass, counted on fake tensors."""
        if encoder not in self._flops:
            network = DepthAnythingV2(encoder)
            with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.empty(1, 3, self.size, self.size))
            self._flops[encoder] = counter.get_total_flops()
        return self._flops[encoder]

    def median_seconds(self, call: Callable[[], Any]) -> float:
        """Of one call, after two that warm up; the device's clock on a GPU."""
        call()
        synchronize()
        started = time.perf_counter()
        call()
        synchronize()
        count = int(min(max(self.slice_s / (time.perf_counter() - started), 3), 100))
        if self.device.type == "cpu":
            times = [time.perf_counter()]
            for _ in range(count):
                call()
                times.append(time.perf_counter())
            return statistics.median(np.diff(times))
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            call()
            event.record()
        synchronize()
        return statistics.median(a.elapsed_time(b) for a, b in pairwise(events)) / 1000


def rows(bench: Bench, encoders: list[str]) -> Iterator[Row]:
    """All rows, the most important first."""
    yield Row("ceilings", "bf16 product of 8192×8192, and a copy", 3, partial(ceilings, bench))
    first, *others = encoders
    yield agreement(bench, first)
    yield from training(bench, first, "ours", ("float32", "bf16"))
    yield from training(bench, first, "transformers", ("float32", "bf16"))
    yield from forward(bench, first, "ours", ("float32", "bf16"))
    yield from forward(bench, first, "transformers", ("float32", "bf16"))
    yield from runs(bench, first)
    yield from training(bench, first, "ours", ("bf16",), compiled=True)
    yield from training(bench, first, "transformers", ("bf16",), compiled=True)
    for encoder in others:
        yield from training(bench, encoder, "ours", ("float32", "bf16"))
        yield from training(bench, encoder, "transformers", ("bf16",))
        yield from forward(bench, encoder, "ours", ("bf16",))
        yield from forward(bench, encoder, "transformers", ("bf16",))
    for encoder in encoders:
        for variant in ("timm's block", "recomputed blocks", "frozen encoder", "LoRA"):
            yield from training(bench, encoder, variant, ("bf16",))
    yield Row(
        "predict", f"{first}, {bench.photos} JPEGs, start and pictures included", 40, partial(predict, bench, first)
    )
    for batched in (False, True):
        name = f"evaluation, {first}, bf16, " + ("batched" if batched else "one by one")
        reference = f"evaluation, {first}, bf16, one by one"
        yield Row("evaluation", name, 10, partial(evaluate, bench, first, batched), reference)
    for encoder in encoders:
        yield Row("memory", f"memory, {encoder}, bf16", 4, partial(memory, bench, encoder))
    for encoder in encoders:
        yield from training(bench, encoder, "ours", ("TF32", "fp16"))
        yield from forward(bench, encoder, "ours", ("TF32", "fp16"))
    for encoder in encoders:
        yield from forward(bench, encoder, "ours", ("bf16",), compiled=True)
        yield from forward(bench, encoder, "transformers", ("bf16",), compiled=True)
    for encoder in others:
        yield agreement(bench, encoder)
        yield from training(bench, encoder, "ours", ("bf16",), compiled=True)
        yield from training(bench, encoder, "transformers", ("bf16",), compiled=True)


def main() -> None:
    """Measure what there is time for, printing and saving each row; exit status 1 if one of them failed."""
    chosen = arguments().parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No CUDA GPU is available. --device cpu runs every row at toy size.")
    for name, value in SIZES[chosen.device].items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    quiet()
    deadline = time.monotonic() + 60 * chosen.minutes
    results: dict[str, Any] = {}
    failed = False
    print(f"{machine()}\nbatch {chosen.batch_size}, {chosen.size}×{chosen.size}, at most {chosen.minutes} minutes\n")
    print(f"{'':64}" + "".join(f"{column:>10}" for column in COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(chosen, Path(folder))
        for row in rows(bench, chosen.encoders):
            left = deadline - time.monotonic()
            if chosen.only and not any(words in f"{row.group}: {row.name}" for words in chosen.only):
                continue
            if chosen.device == "cuda" and row.seconds > left:
                print(f"{row.name:64}  left out: it takes about {row.seconds:.0f} s, and {max(left, 0):.0f} s are left")
                continue
            started = time.monotonic()
            reset(bench.device)
            try:
                values = row.measure()
            except Exception as error:  # the other rows are still worth having
                if is_oom_error(cast(Exception, error)):
                    values = {"note": "out of memory"}
                else:
                    traceback.print_exc()
                    values, failed = {"note": f"failed: {type(error).__name__}"}, True
            values["took_s"] = time.monotonic() - started
            results[row.name] = values
            print(line(row, results), flush=True)
            write_json(RESULTS / "gpu.json", {"machine": machine(), "batch_size": bench.batch_size, **results})
    sys.exit(failed)


def line(row: Row, results: dict[str, Any]) -> str:
    """The printed row."""
    values = results[row.name]
    rate, reference = values.get("images_per_s"), results.get(row.reference or "", {}).get("images_per_s")
    cells = (
        f"{rate:.1f}" if rate else "",
        f"{rate / reference:.2f}" if rate and reference else "",
        f"{values['of_peak']:.0%}" if values.get("of_peak") else "",
        f"{values['gigabytes']:.1f}" if values.get("gigabytes") else "",
        f"  {values.get('note', '')}",
    )
    return f"{row.name:64}" + "".join(f"{cell:>10}" for cell in cells)


def reset(device: torch.device) -> None:
    """Free what the last row used."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def ceilings(bench: Bench) -> dict[str, Any]:
    """What this GPU reaches: TFLOPS of a matrix product, and GB/s read and written by a copy."""
    length = 8192 if bench.device.type == "cuda" else 256
    a, b = (torch.randn(length, length, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    tflops = 2 * length**3 / bench.median_seconds(lambda: a @ b) / 1e12
    source = torch.randn(length * length * 4, device=bench.device)
    target = torch.empty_like(source)
    gb_per_s = 2 * 4 * source.numel() / bench.median_seconds(lambda: target.copy_(source)) / 1e9
    return {"tflops": tflops, "gb_per_s": gb_per_s, "note": f"{tflops:.0f} TFLOPS, {gb_per_s:.0f} GB/s"}


def agreement(bench: Bench, encoder: str) -> Row:
    """A row of differences between networks and precisions."""
    name = f"agreement, {encoder}: transformers' output, and ours by precision"
    return Row("agreement", name, 12, partial(agree, bench, encoder))


def agree(bench: Bench, encoder: str) -> dict[str, Any]:
    """Largest difference, as a share of the range, from ours in float32: transformers', and ours in other precisions.

    Raises:
        ValueError: a float32 output differs by more than 1e-3.
    """
    exact_products("float32")
    torch.manual_seed(0)
    network = DepthAnythingV2(encoder)
    peer = TransformersDepth(network).to(bench.device).eval()
    image = torch.randn(
        2, 3, 518, 518, device=bench.device
    )  # at other sizes transformers resamples positions otherwise
    with torch.no_grad():
        on_cpu = network(image.cpu()).to(bench.device)
        network.to(bench.device).eval()
        ours = network(image)

        def difference(other: Tensor) -> float:
            return ((other.float() - ours).abs().max() / (ours.max() - ours.min())).item()

        found = {"CPU": difference(on_cpu), "transformers": difference(peer(image))}
        if max(found.values()) > 1e-3:
            raise ValueError(f"The networks differ: {found}.")
        for name in ("TF32", "bf16", "fp16"):
            exact_products(name)
            with torch.autocast(bench.device.type, PRECISIONS[name], enabled=PRECISIONS[name] is not None):
                found[name] = difference(network(image))
    return {**found, "note": ", ".join(f"{name} {value:.1e}" for name, value in found.items())}


def with_timm_blocks(encoder: str) -> DepthAnythingV2:
    """Every block calls its parts, as timm's does, instead of its own backward pass."""
    network = DepthAnythingV2(encoder)
    for block in network.encoder.blocks:
        block._types = []  # type: ignore[assignment]
    return network


VARIANTS: dict[str, Callable[[str], nn.Module]] = {
    "ours": DepthAnythingV2,
    "transformers": lambda encoder: TransformersDepth(DepthAnythingV2(encoder)),
    "timm's block": with_timm_blocks,
    "recomputed blocks": partial(DepthAnythingV2, recompute_blocks=True),
    "frozen encoder": partial(DepthAnythingV2, freeze_encoder=True),
    "LoRA": partial(DepthAnythingV2, adapter=LoRA()),
}


def training(
    bench: Bench, encoder: str, variant: str, precisions: tuple[str, ...], compiled: bool = False
) -> Iterator[Row]:
    """Rows of whole training steps in a plain loop: forward, SILog, backward, AdamW."""
    for precision in precisions:
        seconds = (80 if encoder == "vitl" else 50) if compiled else 9 if encoder == "vitl" else 4
        name = f"training, {encoder}, {precision}, {variant}" + ", compiled" * compiled
        work = partial(train, bench, encoder, variant, precision, compiled)
        yield Row("compiled" if compiled else "training", name, seconds, work, f"training, {encoder}, float32, ours")


def train(bench: Bench, encoder: str, variant: str, precision: str, compiled: bool) -> dict[str, Any]:
    """Images per second and peak memory of training steps."""
    exact_products(precision)
    with bench.device:
        network = VARIANTS[variant](encoder)
    network.to(bench.device).train()
    if compiled:
        network.compile()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer, loss, dtype = adamw({"encoder": parameters}), SiLogLoss(), PRECISIONS[precision]
    image, (target, mask) = bench.image(), bench.truth()
    scaler = torch.amp.GradScaler(bench.device.type, enabled=dtype == torch.float16)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(bench.device.type, dtype, enabled=dtype is not None):
            prediction = network(image)
        scaler.scale(loss(prediction, target, mask)).backward()
        scaler.step(optimizer)
        scaler.update()

    rate = bench.batch_size / bench.median_seconds(step)
    values: dict[str, Any] = {"images_per_s": rate, "gigabytes": gigabytes(bench.device)}
    if bench.device.type == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(3):
                step()
            synchronize()
        values["kernels_ms"] = kernels_ms(profiler.key_averages(), 3)
        values["note"] = f"{values['kernels_ms']:.1f} ms a step in kernels"
    whole = variant in ("ours", "transformers", "timm's block")
    share = share_of_peak(3 * bench.forward_flops(encoder) * rate) if whole and precision == "bf16" else None
    return {**values, "of_peak": share}


def forward(
    bench: Bench, encoder: str, variant: str, precisions: tuple[str, ...], compiled: bool = False
) -> Iterator[Row]:
    """Rows of forward passes without gradients."""
    for precision in precisions:
        name = f"forward, {encoder}, {precision}, {variant}" + ", compiled" * compiled
        work = partial(infer, bench, encoder, variant, precision, compiled)
        group, seconds = ("compiled", 30) if compiled else ("forward", 3)
        yield Row(group, name, seconds, work, f"forward, {encoder}, float32, ours")


def infer(bench: Bench, encoder: str, variant: str, precision: str, compiled: bool) -> dict[str, Any]:
    """Images per second and peak memory of forward passes."""
    exact_products(precision)
    with bench.device:
        network = VARIANTS[variant](encoder)
    network.to(bench.device).eval()
    if compiled:
        network.compile()
    image, dtype = bench.image(), PRECISIONS[precision]

    def call() -> None:
        with torch.inference_mode(), torch.autocast(bench.device.type, dtype, enabled=dtype is not None):
            network(image)

    rate = bench.batch_size / bench.median_seconds(call)
    share = share_of_peak(bench.forward_flops(encoder) * rate) if precision == "bf16" else None
    return {"images_per_s": rate, "of_peak": share, "gigabytes": gigabytes(bench.device)}


def runs(bench: Bench, encoder: str) -> Iterator[Row]:
    """Rows of Lightning runs as train.py makes them, with all default callbacks but those that save or draw."""
    plain = f"training, {encoder}, bf16, ours"
    repeated = f"train.py, {encoder}, bf16, one batch repeated"
    yield Row("lightning", repeated, 9, partial(run, bench, encoder, False), plain)
    yield Row("lightning", f"train.py, {encoder}, bf16, h5 files", 10, partial(run, bench, encoder, True), repeated)
    saving = partial(run, bench, encoder, False, save_every=bench.steps // 6)
    yield Row("lightning", f"train.py, {encoder}, bf16, saved every {bench.steps // 6} steps", 12, saving, repeated)
    yield Row("profile", f"profile, {encoder}, bf16", 12, partial(profile, bench, encoder))


def run(
    bench: Bench, encoder: str, files: bool, observer: Callback | None = None, save_every: int | None = None
) -> dict[str, Any]:
    """Images per second of a run, after a third of its steps; with `save_every`, it saves after every so many."""
    exact_products("float32")
    write_photo_frames(bench)
    accelerator = "gpu" if bench.device.type == "cuda" else "cpu"
    shared = [f"model={encoder}", f"data.root={bench.root / 'frames'}", f"run_dir={bench.root / 'run'}", "trainer=bf16"]
    shared += [f"trainer.accelerator={accelerator}", f"trainer.max_steps={bench.steps}", "trainer.max_epochs=-1"]
    sizes = [f"data.size={bench.size}", f"data.crop=[{bench.size},{bench.size}]", f"data.batch_size={bench.batch_size}"]
    # A checkpoint records the place in the epoch, and the repeated batch has no end.
    sizes += [f"data.num_workers={bench.workers}", f"trainer.limit_train_batches={bench.steps}"]
    sizes += ["trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0"]
    left_out = [f"~callbacks.{name}" for name in ("panels", "worst", "depth_histogram", "progress")]
    if save_every is None:
        left_out += ["+trainer.enable_checkpointing=false", "~callbacks.checkpoints"]
    else:
        left_out.append(f"callbacks.checkpoints.every_n_steps={save_every}")
    cfg = composed(*shared, *sizes, *left_out)
    torch.manual_seed(0)
    module = objects.build_module(cfg, objects.build_network(cfg.model))
    clock = Clock(max(bench.steps // 3, Observer.COUNTED.stop), bench.steps)
    callbacks = [*objects.build_all(cfg, "callbacks").values(), clock, *([observer] if observer else [])]
    trainer = objects.build_trainer(cfg, callbacks, [])
    data = objects.build_data(cfg)
    if not files:
        batch = collate([data.train_data[index] for index in range(bench.batch_size)])
        if bench.device.type == "cuda":
            batch = batch._replace(**{name: getattr(batch, name).pin_memory() for name in ("image", "target", "mask")})
        data.train_dataloader = lambda: DataLoader(Repeated(batch), batch_size=None)  # type: ignore[method-assign]
    trainer.fit(module, datamodule=data)
    return {"images_per_s": clock.steps * bench.batch_size / clock.seconds, "gigabytes": gigabytes(bench.device)}


class Clock(Callback):
    """Measures the time from one step of a run to another, each with no kernels in flight."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.steps, self.seconds = first, last, last - first, 0.0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Read the clock."""
        if trainer.global_step in (self.first, self.last):
            synchronize()
            self.seconds = time.perf_counter() - self.seconds  # a difference at the second reading


class Observer(Callback):
    """Profiles steps of a run, then counts what makes the host wait for the device in others, by line of code."""

    PROFILED, COUNTED = range(3, 7), range(8, 13)

    def __init__(self, device: torch.device) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if device.type == "cuda" else []
        self.profiler = torch.profiler.profile(activities=activities)
        self.on_gpu, self.waits = device.type == "cuda", Counter[str]()
        self._catching = warnings.catch_warnings(record=True)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Begin at the first step of a range."""
        if trainer.global_step == self.PROFILED.start:
            synchronize()
            self.profiler.start()
        if trainer.global_step == self.COUNTED.start and self.on_gpu:
            self._caught = self._catching.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Stop after the last step of a range."""
        if trainer.global_step == self.PROFILED.stop:
            synchronize()
            self.profiler.stop()
        if trainer.global_step == self.COUNTED.stop and self.on_gpu:
            torch.cuda.set_sync_debug_mode("default")
            self._catching.__exit__(None, None, None)
            waits = [w for w in self._caught or [] if "synchroniz" in str(w.message)]
            self.waits = Counter(f"{'/'.join(Path(w.filename).parts[-3:])}:{w.lineno}" for w in waits)


def profile(bench: Bench, encoder: str) -> dict[str, Any]:
    """Time in kernels, and what waits for the device, per step; the table of kernels goes to gpu_profile.txt."""
    observer = Observer(bench.device)
    measured = run(bench, encoder, False, observer)
    averages = observer.profiler.key_averages()
    spent_ms = kernels_ms(averages, len(observer.PROFILED))
    step_ms = 1000 * bench.batch_size / measured["images_per_s"]
    sort = "self_cuda_time_total" if observer.on_gpu else "self_cpu_time_total"
    table = averages.table(sort_by=sort, row_limit=40, max_name_column_width=90)
    waits = {line: count / len(observer.COUNTED) for line, count in observer.waits.most_common()}
    listed = "".join(f"{count:5.1f}  {line}\n" for line, count in waits.items())
    (RESULTS / "gpu_profile.txt").write_text(f"{machine()}\n{table}\nwaits per step\n{listed}")
    note = f"{step_ms:.1f} ms a step, {spent_ms:.1f} in kernels, {sum(waits.values()):.1f} waits: {waits}"
    return {"kernels_ms": spent_ms, "step_ms": step_ms, "waits": waits, "note": note}


def kernels_ms(averages: Iterable[Any], steps: int) -> float:
    """Milliseconds in kernels per step, from a profile's averages."""
    kernels = [each for each in averages if each.device_type == torch.autograd.DeviceType.CUDA]
    return sum(each.self_device_time_total for each in kernels if not each.is_user_annotation) / steps / 1000


def write_photo_frames(bench: Bench) -> None:
    """An NYU release of a few frames, each under many names."""
    root = bench.root / "frames"
    if root.exists():
        return
    write_frames(root)
    frames = sorted((root / "train" / "room").glob("*.h5"))
    for copy in range(bench.steps * bench.batch_size // len(frames) + 1):
        for frame in frames:
            (frame.parent / f"{copy + 1:03d}{frame.name}").hardlink_to(frame)


def predict(bench: Bench, encoder: str) -> dict[str, Any]:
    """Images per second of predict.py on a folder of JPEGs, as typed: start, reading, network, files."""
    folder, weights = bench.root / "photos", bench.root / "weights.safetensors"
    folder.mkdir()
    save_weights(DepthAnythingV2(encoder), weights, layout="safetensors")
    rng = np.random.default_rng(0)
    for number in range(bench.photos):
        if number < 16:
            coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
            photo = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f"{number:05d}.jpg"), photo)
        else:
            (folder / f"{number:05d}.jpg").hardlink_to(folder / f"{number % 16:05d}.jpg")
    typed = [f"model={encoder}", f"model.weights={weights}", f"input={folder}", f"output={bench.root / 'depth'}"]
    typed += [f"data.size={bench.size}", f"batch_size={bench.batch_size}", f"device={bench.device.type}"]
    precision = "bfloat16" if bench.device.type == "cuda" else "float32"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, CONF.parent / "predict.py", *typed, f"precision={precision}"],
        cwd=bench.root,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode:
        raise RuntimeError(f"predict.py ended with {done.returncode}: {(done.stdout + done.stderr)[-1000:]}")
    seconds = time.perf_counter() - started
    found = re.search(r"([\d.]+) per second", done.stdout)
    if found is None:
        raise RuntimeError(f"predict.py did not say how fast it was: {done.stdout[-1000:]}")
    note = f"{seconds:.1f} s in all; {found[1]} a second once the network is loaded"
    return {"images_per_s": bench.photos / seconds, "note": note}


def evaluate(bench: Bench, encoder: str, batched: bool) -> dict[str, Any]:
    """Images per second of network and metrics: a batch at a time, or one by one with a host sync for each image."""
    torch.manual_seed(0)
    with bench.device:
        network = DepthAnythingV2(encoder).eval()
    protocol = Protocol(max_depth=10.0, crop="nyu_eigen")
    module, metrics = (
        cls.to(bench.device) for cls in (DepthModule(network, DepthMetrics(protocol)), DepthMetrics(protocol))
    )
    image = torch.randint(0, 256, (bench.batch_size, 3, bench.size, bench.size), dtype=torch.uint8, device=bench.device)
    target = torch.rand(bench.batch_size, 480, 640, device=bench.device) * 9 + 0.5
    names = [""] * bench.batch_size
    ids = [str(number) for number in range(bench.batch_size)]
    cameras = torch.full((bench.batch_size, 4), torch.nan)
    batch = DepthBatch(image, target, target < 8, cameras, [DepthKind.METRES] * bench.batch_size, ids, names)

    def one_by_one() -> None:
        for index in range(bench.batch_size):
            metrics.reset()
            one, truth, mask = (part[index : index + 1] for part in batch[:3])
            metrics.update(protocol.upsampled(network(normalize(one)), *truth.shape[-2:]), truth, mask)
            {name: value.item() for name, value in metrics.compute().items()}

    def together() -> None:
        module.validation_step(batch, 0)

    with torch.inference_mode(), torch.autocast(bench.device.type, torch.bfloat16):
        seconds = bench.median_seconds(together if batched else one_by_one)
    return {"images_per_s": bench.batch_size / seconds, "gigabytes": gigabytes(bench.device)}


def memory(bench: Bench, encoder: str) -> dict[str, Any]:
    """Largest training batch in the memory of common GPUs, from the peaks of one image and two."""
    if bench.device.type == "cpu":
        return {"note": "needs a GPU"}
    one, two = (peak_gigabytes(encoder, count, torch.bfloat16) for count in (1, 2))
    batches = {f"{limit} GB": largest_batch(one, two, limit) for limit in (16, 24, 80)}
    fits = ", ".join(f"{count} in {limit}" for limit, count in batches.items())
    return {"one_image_gb": one, "further_image_gb": two - one, **batches, "note": f"batch {fits}"}


def exact_products(precision: str) -> None:
    """Use TF32 in float32 products and convolutions only where it is measured."""
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "TF32"


def share_of_peak(flops_per_second: float) -> float | None:
    """Share of the GPU's bfloat16 peak, if it is known."""
    peak = next((peak for name, peak in PEAK_TFLOPS.items() if name in machine()), None)
    return None if peak is None else flops_per_second / (peak * 1e12)


def gigabytes(device: torch.device) -> float | None:
    """Peak memory of tensors since the row began, in GiB."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


SIZES = {
    "cuda": {"encoders": ["vits", "vitb", "vitl"], "size": 518, "batch_size": 16, "slice": 1.5, "steps": 90,
             "workers": min(14, os.cpu_count() or 1), "photos": 1000},
    "cpu": {"encoders": ["vits"], "size": 56, "batch_size": 2, "slice": 0.1, "steps": 16, "workers": 1, "photos": 20},
}  # fmt: skip


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=tuple(SIZES), default="cuda")
    made.add_argument("--minutes", type=float, default=8, help="start no row that would end later")
    made.add_argument("--only", nargs="+", metavar="WORDS", help="rows whose group or name contains one of these")
    made.add_argument("--encoders", nargs="+")
    made.add_argument("--size", type=int, help="of the square images")
    made.add_argument("--batch-size", type=int)
    made.add_argument("--slice", type=float, help="seconds to repeat a step for, at most 100 times")
    made.add_argument("--steps", type=int, help="of a Lightning run; the first third is not timed")
    made.add_argument("--workers", type=int)
    made.add_argument("--photos", type=int, help="to predict")
    return made


if __name__ == "__main__":
    main()
