"""Do metres hold for another lens? Networks trained at 45 to 60 degrees, scored on streets seen through three ranges.

With `camera=none` predictions should be off by the ratio of the focal lengths, with `camera=canonical` they should
not. The networks start from `rooms_tiny`, which has seen streets through many lenses, but no metres. They see
streets, where nothing but apparent size tells metres: the usual rooms are lit by a lamp that the camera carries,
whose light fades with the distance, whatever the lens. Started again, it goes on where it was:

    python benchmarks/cameras.py --folder outputs/cameras
"""

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

from runs import compared, measured
from timing import parser, report
from torch import Tensor

from depth_lightning.metrics import align
from depth_lightning.reporting.tables import interval, number

TRAINED = "45–60°, as trained"
LENSES = {TRAINED: "[45,60]", "30–40°": "[30,40]", "70–85°": "[70,85]"}
"""Lens → the range of horizontal fields of view in degrees."""
CANONICAL = ("camera=canonical", "camera.focal_px=114")  # of the middle of the first range, 112 pixels across
WAYS: dict[str, tuple[str, ...]] = {
    "camera=none": ("augmentation=article",),
    "camera=canonical": ("augmentation=article", *CANONICAL),
    "camera=none augmentation=camera": ("augmentation=camera",),
    "camera=canonical augmentation=camera": ("augmentation=camera", *CANONICAL),
}
"""Way → what is typed for it."""
PLAIN = ("panels=0", "breakdowns=false")
ADDED = ("log10", "log_times")
HEADER = {"way": False, "lens": False, "AbsRel": True, "95 %": True, "log10": True, "prediction / truth": True}


def log_times(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """(b,) logarithm of the median of prediction / target: by how much an image's metres are off."""
    return -align(prediction, target, mask, "scale_median_of_ratios").scale.log()


def main() -> None:
    """Train and score what is missing, print and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, default=Path("outputs/cameras"), help="of the runs")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--epochs", type=int, default=5)
    arguments.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments.add_argument("overrides", nargs="*", help="of all runs, such as data.train_images=100")
    chosen = arguments.parse_args()
    folder = chosen.folder.resolve()
    own = (word for word in chosen.overrides if word.startswith("data."))
    data = ("data.look=open", f"data.root={folder}/data", *own)
    # No max_depth, which with camera=canonical is smaller for a wide lens.
    common = ("experiment=quick_start", "data.train_images=2000", f"data.fov_deg={LENSES[TRAINED]}")
    common += ("head=log_depth", "protocol.max_depth=80")
    done: dict[str, list[dict[str, Any]]] = {}
    for seed in range(chosen.seeds):
        for way in chosen.ways:
            run = folder / f"{way.replace(' ', '_').replace('=', '_')}_{seed}"
            length = (f"trainer.max_epochs={chosen.epochs}", f"seed={seed}", "report=false")
            measured(run, "train", *common, *data, *length, *WAYS[way], *chosen.overrides)
            for lens, fov_deg in LENSES.items():
                scored = run.with_name(f"{run.name}_{fov_deg[1:3]}")
                typed = (f"checkpoint={run}/checkpoints/best.ckpt", "data=rooms", *data, f"data.val_fov_deg={fov_deg}")
                found = measured(scored, "evaluate", *typed, "+metrics.log_times=cameras.log_times", *PLAIN)
                metrics = json.loads((scored / "metrics.json").read_text())["metrics"]
                found |= {name: metrics[name] for name in ADDED}
                done.setdefault(f"{way}, {lens}", []).append(found)
            save(done)


def save(done: dict[str, list[dict[str, Any]]]) -> None:
    """The means over the seeds, with intervals by image; of prediction / truth, the geometric mean."""
    rows = []
    for name, runs in done.items():
        folders = [Path(each["folder"]) for each in runs]
        found, (log10, log_times) = compared(folders, folders), (mean(each[key] for each in runs) for key in ADDED)
        errors = [number(found.abs_rel), interval(found.interval), number(log10)]
        rows.append([*name.split(", ", 1), *errors, f"{math.exp(log_times):.3f}"])
    report("cameras", HEADER, rows, {"runs": done})


if __name__ == "__main__":
    main()
