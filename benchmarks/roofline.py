"""Where a forward pass and a training step spend their time on the CPU, and what the processor would allow.

An operation needs at least its arithmetic at the speed of a large matrix product, or its bytes at the speed of a copy,
both measured here; the last column is this time over its own.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from timing import best_seconds, parser, report
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from depth_lightning.losses import SiLogLoss
from depth_lightning.models import DepthAnythingV2
from depth_lightning.runs.host_memory import keep_freed_memory

FAMILIES = {
    "matrix products": r"^(add|b|baddb)?mm$|^linear",
    "attention": "scaled_dot_product|softmax",
    "convolutions": "conv",
    "resizing": "upsample|interpolate",
    "norms": "layer_norm|var|rsqrt|native_group_norm",
    "activations": "gelu|relu|sigmoid|threshold",
    "copies and casts": "copy|clone|cat|fill|zero|contiguous|to$",
    "optimizer": "adam",
}
"""Family → a pattern of its operations' names, the first one that is found; all else is element by element."""
ELEMENTS, WHOLE = "element by element", "all"
HEADER = {"operation": False, "time": True, "GFLOP/s": True, "GB/s": True, "of what is attainable": True}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Bytes(TorchDispatchMode):
    """Counts what every operation reads and writes, each tensor once."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count unless it returns a view."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.moved[family(func.name())] += sum({id(each): each.nbytes for each in tensors}.values())
        return result


def main() -> None:
    """Measure, print and save."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--encoder", default="vits")
    arguments.add_argument("--size", type=int, nargs=2, default=[518, 686], help="of the forward pass")
    arguments.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    chosen = arguments.parse_args()
    keep_freed_memory()
    rows, values = [], dict[str, Any]()
    for precision in chosen.precisions:
        limits = ceilings(PRECISIONS[precision], chosen.repeats)
        rows.append([f"{precision}: large matrix product, large copy", "", *_rates(*limits), ""])
        for name, step in steps(chosen.encoder, chosen.size, PRECISIONS[precision]).items():
            values[f"{name}, {precision}"] = found = measure(step, chosen.repeats, limits)
            for key, part in found.items():
                took = f"{part['seconds']:.2f} s" if key == WHOLE else f"{part['share']:.1%}"
                speeds = _rates(part["flops_per_second"], part["bytes_per_second"])
                rows.append([name if key == WHOLE else f"  {key}", took, *speeds, f"{part['attained']:.0%}"])
    report("roofline", HEADER, rows, values)


def _rates(flops_per_second: float, bytes_per_second: float) -> list[str]:
    return [f"{flops_per_second / 1e9:.0f}", f"{bytes_per_second / 1e9:.1f}"]


def steps(encoder: str, size: Iterable[int], dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Name → a forward pass of one image, and a training step of two."""
    torch.manual_seed(0)
    network = DepthAnythingV2(encoder, output="metric", max_depth=10.0)
    optimizer, loss = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True), SiLogLoss()
    image, images = torch.rand(1, 3, *size), torch.rand(2, 3, 518, 518)
    target = torch.rand(2, 518, 518) * 9 + 0.5
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def forward() -> None:
        network.eval()
        with torch.inference_mode(), autocast:
            network(image)

    def train() -> None:
        network.train()
        with autocast:
            prediction = network(images)
        loss(prediction.float(), target, target > 0).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {f"forward, {encoder}, 1 image": forward, f"training step, {encoder}, 2 images": train}


def measure(step: Callable[[], Any], repeats: int, limits: tuple[float, float]) -> dict[str, Any]:
    """Time and speed of a step, and of its families of operations, the longest first."""
    step()
    counter = FlopCounterMode(display=False)
    with Bytes() as traffic, counter:
        step()
    moved, flops, spent = traffic.moved, Counter[str](), Counter[str]()
    for operation, count in counter.get_flop_counts()["Global"].items():
        flops[family(str(operation))] += count
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    for event in profiler.key_averages():
        if event.key.startswith("aten::"):
            spent[family(event.key)] += event.self_cpu_time_total / 1e6
    needed = {key: max(flops[key] / limits[0], moved[key] / limits[1]) for key in spent}
    seconds = best_seconds({WHOLE: step}, repeats)[WHOLE]

    def speed(own: float, work: float, traffic: float, attainable: float) -> dict[str, float]:
        return {
            "seconds": own,
            "flops_per_second": work / own,
            "bytes_per_second": traffic / own,
            "attained": attainable / own,
        }

    whole = speed(seconds, flops.total(), moved.total(), sum(needed.values()))
    return {WHOLE: whole} | {
        key: speed(own, flops[key], moved[key], needed[key]) | {"share": own / spent.total()}
        for key, own in spent.most_common()
    }


def ceilings(dtype: torch.dtype, repeats: int) -> tuple[float, float]:
    """FLOP/s of a large matrix product, and bytes per second of a large copy, reading and writing."""
    a, b = torch.rand(2048, 2048).to(dtype), torch.rand(2048, 2048).to(dtype)
    source = torch.rand(64 * 2**20)
    target = torch.empty_like(source)
    seconds = best_seconds({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, 3 * repeats)
    return 2 * 2048**3 / seconds["product"], 2 * source.nbytes / seconds["copy"]


def family(operation: str) -> str:
    """Of an operation's name, such as aten::addmm or aten.addmm."""
    name = re.split(r"::|\.", operation)[1]
    return next((key for key, pattern in FAMILIES.items() if re.search(pattern, name)), ELEMENTS)


if __name__ == "__main__":
    main()
