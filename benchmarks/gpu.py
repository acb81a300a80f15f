"""Training throughput and evaluation time on one CUDA GPU. Everything printed was measured there.

    python benchmarks/gpu.py                      # everything, about ten minutes
    python benchmarks/gpu.py --encoders vits --batch-sizes 8

`--device cpu` runs the same code at toy sizes to check that it works; its numbers are meaningless.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from sample import write_frames
from timing import machine, parser, report
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from depth_lightning.commands.batch_size import Repeated
from depth_lightning.data import DepthDataModule, NYUDepthV2
from depth_lightning.data.photometric import ColourNoise
from depth_lightning.data.transforms import EvaluationTransform, TrainTransform
from depth_lightning.losses import AffineInvariantLoss, SiLogLoss
from depth_lightning.metrics import DepthMetrics, Protocol
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training import DepthModule, Objective

PEAK_TFLOPS = {"H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L4": 121, "RTX 4090": 165}
"""Dense bfloat16 TFLOPS from the vendors' data sheets; the first key contained in the GPU's name applies."""
IMAGES = 654
"""The size of NYU's test set."""
HEADER = {"": False, "batch": True, "images/s": True, "ratio": True, "of peak": True, "peak GB": True}


class Setting(NamedTuple):
    """A training configuration."""

    encoder: str
    batch_size: int
    precision: str
    compiled: bool = False
    real_files: bool = False


class Clock(Callback):
    """Measures the time between two steps of a run."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.started, self.seconds = first, last, 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Read the clock at the first and the last step, with no kernels in flight."""
        if trainer.global_step in (self.first, self.last):
            synchronize()
            if trainer.global_step == self.first:
                self.started = time.perf_counter()
            else:
                self.seconds = time.perf_counter() - self.started


def main() -> None:
    """Measure, print and save."""
    chosen = arguments().parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No CUDA GPU is available.")
    if chosen.device == "cuda":
        torch.set_float32_matmul_precision("highest")
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_frames(root)
        for encoder in chosen.encoders:
            for batch_size in chosen.batch_sizes:
                rows += training_rows(encoder, batch_size, root, chosen, values)
        rows += evaluation_rows(chosen.encoders[0], root, chosen, values)
    report("gpu", HEADER, rows, values)


def training_rows(
    encoder: str, batch_size: int, root: Path, chosen: argparse.Namespace, values: dict[str, Any]
) -> list[list[str]]:
    """Float32 eager, then the other settings relative to it; the real loader relative to the last setting."""
    baseline = Setting(encoder, batch_size, "32-true")
    fast = baseline._replace(precision="bf16-mixed", compiled=True)
    settings = [baseline, baseline._replace(precision="bf16-mixed"), baseline._replace(precision="16-mixed"), fast]
    settings.append(fast._replace(real_files=True))
    flops, rates, rows = flops_per_image(encoder, chosen.size), {}, []
    for setting in settings:
        name = f"{encoder}, {setting.precision}" + ", compiled" * setting.compiled + ", files" * setting.real_files
        try:
            rates[setting], gigabytes = train(setting, root, chosen)
        except torch.OutOfMemoryError:
            rows.append([f"training: {name}", f"{batch_size}", "out of memory", "–", "–", "–"])
            continue
        reference = rates.get(fast if setting.real_files else baseline)
        rows.append(
            [
                f"training: {name}",
                f"{batch_size}",
                f"{rates[setting]:.1f}",
                f"{rates[setting] / reference:.2f}" if reference else "–",
                share_of_peak(flops * rates[setting]) if setting.precision == "bf16-mixed" else "–",
                f"{gigabytes:.1f}",
            ]
        )
        values[f"{name}, batch {batch_size}"] = {"images_per_second": rates[setting], "gigabytes": gigabytes}
    return rows


def train(setting: Setting, root: Path, chosen: argparse.Namespace) -> tuple[float, float]:
    """Images per second and peak GB of a Lightning run, including everything between steps."""
    torch.manual_seed(0)
    network = DepthAnythingV2(setting.encoder)
    if setting.compiled:
        network.compile()
    loss, relative = SiLogLoss(), AffineInvariantLoss()
    module = DepthModule(network, objective=Objective(loss, loss, relative, output="metric", max_depth=10.0))
    data: LightningDataModule | DataLoader[Any]
    if setting.real_files:
        data = DepthDataModule(
            partial(Frames, root, chosen.steps * setting.batch_size + 1),
            TrainTransform(chosen.size, (chosen.size, chosen.size)),
            EvaluationTransform(chosen.size),
            setting.batch_size,
            num_workers=chosen.workers,
            colour=ColourNoise(),
        )
    else:
        data = DataLoader(Repeated(fixed_batch(setting.batch_size, chosen)), batch_size=None)
    clock = Clock(chosen.steps // 3, chosen.steps)
    trainer = Trainer(
        accelerator="gpu" if chosen.device == "cuda" else "cpu",
        devices=1,
        precision=setting.precision,  # type: ignore[arg-type]
        max_steps=chosen.steps,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    if chosen.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer.fit(module, data)
    gigabytes = torch.cuda.max_memory_allocated() / 2**30 if chosen.device == "cuda" else float("nan")
    torch.compiler.reset()
    return (clock.last - clock.first) * setting.batch_size / clock.seconds, gigabytes


class Frames(NYUDepthV2):
    """A few frames on disk, read repeatedly as if there were `count` of them."""

    def __init__(self, root: Path, count: int, split: Any) -> None:
        super().__init__(root, split=split)
        self.count = count if split == "train" else IMAGES

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        """The frame at `index`, which wraps around."""
        return super().__getitem__(index % super().__len__())


def evaluation_rows(encoder: str, root: Path, chosen: argparse.Namespace, values: dict[str, Any]) -> list[list[str]]:
    """All metrics on images of one size: batched, compared with one by one and a host sync per image."""
    torch.manual_seed(0)
    network = DepthAnythingV2(encoder).to(chosen.device).eval()
    data = DepthDataModule(
        partial(Frames, root, 1),
        TrainTransform(chosen.size, None),
        EvaluationTransform(chosen.size),
        1,
        eval_batch_size=chosen.eval_batch_size,
        num_workers=chosen.workers,
    )
    data.setup("validate")
    batches = [batch for batch, _ in zip(data.val_dataloader(), range(chosen.evaluated), strict=False)]
    images = sum(len(batch.image) for batch in batches)
    protocol = Protocol(max_depth=10.0, crop="nyu_eigen")
    module = DepthModule(network, DepthMetrics(protocol).to(chosen.device))

    def one_by_one() -> None:
        metrics = DepthMetrics(protocol).to(chosen.device)
        for batch in batches:
            for index in range(len(batch.image)):
                metrics.reset()
                image, target, mask = (part[index : index + 1].to(chosen.device) for part in batch[:3])
                prediction = protocol.upsampled(network(normalize(image)), *target.shape[-2:])
                metrics.update(prediction, target, mask)
                {name: value.item() for name, value in metrics.compute().items()}

    def batched() -> None:
        for index, batch in enumerate(batches):
            image, target, mask = (part.to(chosen.device) for part in batch[:3])
            module.validation_step(batch._replace(image=image, target=target, mask=mask), index)
        module.metrics.compute()
        module.metrics.reset()

    seconds = {}
    for name, run in {"one by one": one_by_one, "batched": batched}.items():
        with torch.inference_mode(), torch.autocast(chosen.device, torch.bfloat16):
            run()
            synchronize()
            started = time.perf_counter()
            run()
            synchronize()
        seconds[name] = time.perf_counter() - started
        values[f"evaluation, {name}"] = {"images_per_second": images / seconds[name]}
    return [
        [
            f"evaluation: {encoder}, bf16, {name}",
            f"{1 if name == 'one by one' else chosen.eval_batch_size}",
            f"{images / value:.1f}",
            f"{seconds['one by one'] / value:.2f}",
            "–",
            "–",
        ]
        for name, value in seconds.items()
    ]


def fixed_batch(batch_size: int, chosen: argparse.Namespace) -> DepthBatch:
    """Random images with depth and holes, in the loader's format, on the device."""
    shape = (batch_size, chosen.size, chosen.size)
    depth = torch.rand(shape, device=chosen.device) * 9 + 0.5
    image = torch.randint(0, 256, (batch_size, 3, *shape[1:]), dtype=torch.uint8, device=chosen.device)
    names = [""] * batch_size
    return DepthBatch(image, depth, depth < 8, [DepthKind.METRES] * batch_size, names, names, [0] * batch_size)


def flops_per_image(encoder: str, size: int) -> float:
    """FLOPs of forward and backward pass, counted on fake tensors."""
    network = DepthAnythingV2(encoder)
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, size, size)).sum().backward()
    return counter.get_total_flops()


def share_of_peak(flops_per_second: float) -> str:
    """Share of the GPU's bfloat16 peak, if it is known."""
    peak = next((peak for name, peak in PEAK_TFLOPS.items() if name in machine()), None)
    return "–" if peak is None else f"{flops_per_second / (peak * 1e12):.0%}"


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    made = parser(__doc__)
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    made.add_argument("--encoders", nargs="+", default=["vits", "vitb", "vitl"])
    made.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 32])
    made.add_argument("--eval-batch-size", type=int, default=16)
    made.add_argument("--evaluated", type=int, default=IMAGES // 16 + 1, help="batches to evaluate")
    made.add_argument("--size", type=int, default=518)
    made.add_argument("--steps", type=int, default=60, help="steps per run; the first third is not timed")
    made.add_argument("--workers", type=int, default=12)
    return made


if __name__ == "__main__":
    main()
