"""Time of one forward pass on the CPU, against transformers and the official code with the same weights."""

from collections.abc import Callable
from pathlib import Path

import torch
from peers import OfficialDepth, TransformersDepth
from timing import best_seconds, parser, report
from torch import Tensor, nn

from depth_lightning.models import DepthAnythingV2

HEADER = {"vits, 518×686, batch 1": False, "seconds": True, "times faster than transformers": True, "official": True}


def main() -> None:
    """Measure, print, keep."""
    arguments = parser(__doc__)
    arguments.add_argument("--official", type=Path, help="a checkout of the official repository, to be timed too")
    chosen = arguments.parse_args()

    torch.manual_seed(0)
    network = DepthAnythingV2("vits", output="relative").eval()
    image = torch.randn(1, 3, 518, 686)
    peers: dict[str, nn.Module] = {"transformers": TransformersDepth(network).eval()}
    if chosen.official:
        peers["official"] = OfficialDepth(chosen.official, network).eval()
    compiled = torch.compile(network)

    rows, values = [], {}
    for precision, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        models: dict[str, nn.Module | Callable[[Tensor], Tensor]] = {"ours, eager": network, "ours, compiled": compiled}
        models |= peers if dtype is None else {"transformers": peers["transformers"]}
        seconds = best_seconds(
            {name: forward_of(model, image, dtype) for name, model in models.items()}, chosen.repeats, warmup=2
        )
        for name, value in seconds.items():
            ratios = [
                f"{seconds[peer] / value:.2f}" if peer in seconds else "–" for peer in ("transformers", "official")
            ]
            rows.append([f"{precision}, {name}", f"{value:.3f}", *ratios])
            values[f"{precision}, {name}"] = value
    report("forward", HEADER, rows, {"seconds": values})


def forward_of(model: Callable[[Tensor], Tensor], image: Tensor, dtype: torch.dtype | None) -> Callable[[], Tensor]:
    """A call of `model`, under autocast to `dtype` if there is one."""

    def run() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
            return model(image)

    return run


if __name__ == "__main__":
    main()
