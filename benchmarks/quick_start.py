"""The quick start, which fine-tunes the package's own weights, against as many steps from random ones, by seed.

Started again, it goes on where it was: python benchmarks/quick_start.py --folder outputs/quick_start
"""

from pathlib import Path

from runs import measured
from timing import parser, report

from depth_lightning.reporting.tables import number

WAYS = {"fine-tuned": (), "from scratch": ("model.weights=null", "optimizer.lr=5e-4", "optimizer.head_lr_scale=2")}
"""Way → what is typed for it; a random network has the rates of experiment=rooms."""


def main() -> None:
    """Train what is missing, print and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, default=Path("outputs/quick_start"), help="of the runs")
    arguments.add_argument("overrides", nargs="*", help="of both ways, such as data.train_images=1000")
    chosen = arguments.parse_args()
    both = ("experiment=quick_start", *chosen.overrides)
    rows, values, reductions = [], {}, []
    for seed in range(chosen.seeds):
        runs = {
            way: measured(chosen.folder / f"{way.replace(' ', '_')}_{seed}", "train", *both, f"seed={seed}", *own)
            for way, own in WAYS.items()
        }
        tuned, scratch = runs.values()
        reductions.append(1 - tuned["abs_rel"] / scratch["abs_rel"])
        numbers = [number(tuned["abs_rel"]), number(scratch["abs_rel"]), f"{reductions[-1]:.1%}"]
        rows.append([str(seed), *numbers, f"{tuned['seconds']:.0f}", f"{scratch['seconds']:.0f}"])
        values[str(seed)] = runs
    mean = sum(reductions) / len(reductions)
    rows.append(["mean", "", "", f"{mean:.1%}", "", ""])
    header = {"seed": False, **{f"AbsRel {way}": True for way in WAYS}, "lower by": True}
    report("quick_start", header | {f"{way}, s": True for way in WAYS}, rows, {"seeds": values, "lower_by": mean})


if __name__ == "__main__":
    main()
