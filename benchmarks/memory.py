"""The largest training batch that fits into a given GPU memory, by encoder and option, measured on one CUDA GPU."""

from typing import Any

import torch
from timing import parser, report

from depth_lightning.losses import SiLogLoss
from depth_lightning.models import DepthAnythingV2
from depth_lightning.training.optimizer import adamw

OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": None},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "bfloat16, recompute_blocks": {"dtype": torch.bfloat16, "recompute_blocks": True},
    "bfloat16, freeze_encoder": {"dtype": torch.bfloat16, "freeze_encoder": True},
}


def main() -> None:
    """Measure, print and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--encoders", nargs="+", default=["vits", "vitb", "vitl"])
    arguments.add_argument(
        "--gigabytes", nargs="+", type=int, default=[16, 24, 80], help="of GPUs to compute batches for"
    )
    chosen = arguments.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA GPU is available.")
    rows, values = [], {}
    for encoder in chosen.encoders:
        for name, option in OPTIONS.items():
            one, two = (peak_gigabytes(encoder, batch_size, **option) for batch_size in (1, 2))
            largest = [largest_batch(one, two, memory) for memory in chosen.gigabytes]
            rows.append([f"{encoder}, {name}", f"{one:.2f}", f"{two - one:.2f}", *map(str, largest)])
            values[f"{encoder}, {name}"] = {"one_image_gb": one, "further_image_gb": two - one}
    limits = {f"batch in {memory} GB": True for memory in chosen.gigabytes}
    report("memory", {"training at 518×518": False, "first GB": True, "each further": True, **limits}, rows, values)


def largest_batch(one: float, two: float, limit: float) -> int:
    """Images that fit into `limit` GB, from the peak memory of one and of two.

    Memory grows linearly with images; a tenth is reserved for fragmentation and the CUDA context.
    """
    return max(0, int((0.9 * limit - one) // (two - one)) + 1)


def peak_gigabytes(
    encoder: str,
    batch_size: int,
    dtype: torch.dtype | None,
    recompute_blocks: bool = False,
    freeze_encoder: bool = False,
) -> float:
    """Peak GiB over two training steps, the second with the optimiser's state."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    network = DepthAnythingV2(encoder, freeze_encoder=freeze_encoder, recompute_blocks=recompute_blocks).cuda()
    optimizer, loss = adamw(network.parameter_groups()), SiLogLoss()
    image = torch.randn(batch_size, 3, 518, 518, device="cuda")
    target = torch.rand(batch_size, 518, 518, device="cuda") * 9 + 0.5
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype, enabled=dtype is not None):
            prediction = network(image)
        loss(prediction, target, target < 8).backward()
        optimizer.step()
    return torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    main()
