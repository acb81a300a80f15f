"""Time and peak memory of a training step on the CPU, compared with transformers' model, same loss and optimiser.

Ours runs as in train.py, which keeps freed memory. To isolate the contribution of the network itself, transformers'
model is also run that way.
"""

import time
from typing import Any

import torch
from peers import TransformersDepth
from timing import in_fresh_process, parser, report
from torch import nn

from depth_lightning.losses import SiLogLoss
from depth_lightning.models import DepthAnythingV2
from depth_lightning.runs.host_memory import keep_freed_memory
from depth_lightning.training.optimizer import adamw

HEADER = {"vits, 518×518, batch 2, float32": False, "seconds": True, "peak GB": True, "time": True, "memory": True}
MODELS = ("ours", "transformers", "transformers, memory kept")


def main() -> None:
    """Measure, print and save."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--batch-size", type=int, default=2)
    chosen = arguments.parse_args()
    seconds = dict.fromkeys(MODELS, float("inf"))
    gigabytes = dict.fromkeys(MODELS, float("inf"))
    for _ in range(chosen.repeats):  # in turns, so that other load on the machine affects all alike
        for name in MODELS:
            took, peak = in_fresh_process(step, name, chosen.batch_size)
            seconds[name], gigabytes[name] = min(seconds[name], took), min(gigabytes[name], peak)
    rows = [
        [
            name,
            f"{seconds[name]:.2f}",
            f"{gigabytes[name]:.2f}",
            f"{seconds['transformers'] / seconds[name]:.2f}× faster",
            f"{gigabytes[name] / gigabytes['transformers']:.2f}×",
        ]
        for name in MODELS
    ]
    values: dict[str, Any] = {"batch_size": chosen.batch_size, "seconds": seconds, "gigabytes": gigabytes}
    report("training_step", HEADER, rows, values)


def step(name: str, batch_size: int) -> float:
    """Seconds of the faster of two steps after a warm-up step."""
    if name != "transformers":
        keep_freed_memory()
    torch.manual_seed(0)
    network = DepthAnythingV2("vits", output="metric")
    model: nn.Module = network if name == "ours" else TransformersDepth(network)
    parameters = network.parameter_groups() if name == "ours" else {"encoder": list(model.parameters())}
    del network
    optimizer, loss = adamw(parameters), SiLogLoss()
    image, target = torch.randn(batch_size, 3, 518, 518), torch.rand(batch_size, 518, 518) * 9 + 0.5
    mask = torch.rand(batch_size, 518, 518) < 0.8
    best = float("inf")
    for turn in range(3):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss(model(image), target, mask).backward()
        optimizer.step()
        if turn:
            best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    main()
