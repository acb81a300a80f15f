"""What an evaluation costs beside the network: `evaluate` of vits on 480×640 frames, with all that it writes.

A few and many frames are evaluated; the difference gives the time of one frame, and the rest is the start. Without the
network, whose forward pass is timed alone, remains what ours adds.
"""

import tempfile
from pathlib import Path

from forward import forward_of
from runs import measured
from sample import write_frames
from timing import best_seconds_apart, parser, report

from depth_lightning.models import DepthAnythingV2, save_weights

FRAMES, FEW = 654, 10
HEADER = {"evaluate, vits, 518×686, 654 frames": False, "s": True, "share": True}


def main() -> None:
    """Measure, print and save."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--images", type=int, default=FRAMES, help="evaluated; the table is of 654")
    chosen = arguments.parse_args()
    if chosen.images <= FEW:
        arguments.error(f"--images must be more than {FEW}, found {chosen.images}")
    with tempfile.TemporaryDirectory() as folder:
        root, took = Path(folder), {}
        save_weights(DepthAnythingV2("vits"), root / "vits.pth", layout="official")
        network = ("model=vits", f"model.weights={root}/vits.pth", "model.init=all", "report=true")
        for images in (FEW, chosen.images):
            data = root / f"frames_{images}"
            write_frames(data, images)
            run = measured(root / f"run_{images}", "evaluate", *network, "data=nyu", f"data.root={data}")
            took[images] = run["seconds"]
    forward = best_seconds_apart(forward_of, {"": ("float32", "ours, eager", None)}, chosen.repeats, warmup=2)[""]
    frame = (took[chosen.images] - took[FEW]) / (chosen.images - FEW)
    parts = {"network": FRAMES * forward, "the rest of each frame": FRAMES * (frame - forward)}
    parts["start, and what is written once"] = took[FEW] - FEW * frame
    whole = sum(parts.values())
    rows = [[name, f"{seconds:.1f}", f"{seconds / whole:.1%}"] for name, seconds in parts.items()]
    report("evaluation", HEADER, rows, {"seconds": parts, "evaluated": took})


if __name__ == "__main__":
    main()
