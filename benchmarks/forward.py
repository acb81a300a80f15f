"""Time of one forward pass on the CPU, compared with transformers and the official code with the same weights.

Ours runs as in evaluate.py and predict.py, which keep freed memory. To isolate the contribution of the network itself,
transformers' model is also run that way.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from peers import OfficialDepth, TransformersDepth
from timing import best_seconds_apart, parser, report
from torch import Tensor

from depth_lightning.models import DepthAnythingV2
from depth_lightning.runs.host_memory import keep_freed_memory

HEADER = {"vits, 518×686, batch 1": False, "seconds": True, "times faster than transformers": True, "official": True}
PRECISIONS = ("float32", "bfloat16")
MODELS = ("ours, eager", "ours, compiled", "transformers", "transformers, memory kept")


def main() -> None:
    """Measure, print and save."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--official", type=Path, help="a checkout of the official repository, to time as well")
    arguments.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="to time")
    chosen = arguments.parse_args()
    models = dict.fromkeys(chosen.precisions, MODELS)
    if chosen.official and "float32" in models:
        models["float32"] += ("official",)
    seconds = {}
    for precision, names in models.items():
        candidates = {name: (precision, name, chosen.official) for name in names}
        best = best_seconds_apart(forward_of, candidates, chosen.repeats, warmup=2)
        seconds |= {(precision, name): value for name, value in best.items()}
    rows = [
        [f"{precision}, {model}", f"{value:.3f}"]
        + [
            f"{seconds[precision, peer] / value:.2f}" if (precision, peer) in seconds else "–"
            for peer in ("transformers", "official")
        ]
        for (precision, model), value in seconds.items()
    ]
    values = {f"{precision}, {model}": value for (precision, model), value in seconds.items()}
    report("forward", HEADER, rows, {"seconds": values})


def forward_of(precision: str, name: str, official: Path | None) -> Callable[[], Tensor]:
    """A forward pass of the named model, under autocast unless `precision` is float32."""
    if name not in ("transformers", "official"):
        keep_freed_memory()
    torch.manual_seed(0)
    network = DepthAnythingV2("vits", output="relative").eval()
    model: Callable[[Tensor], Tensor] = network
    if name == "ours, compiled":
        torch._inductor.config.freezing = True  # as in evaluate.py; this process runs only this model
        network.compile()
    elif name.startswith("transformers"):
        model = TransformersDepth(network).eval()
    elif name == "official" and official:
        model = OfficialDepth(official, network).eval()
    image = torch.randn(1, 3, 518, 686)

    def run() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return model(image)

    return run


if __name__ == "__main__":
    main()
