"""Which way of fine-tuning helps on few images: rooms of another look, from one network trained on the usual one.

Every way takes as many steps of as many images. The new look has other patterns, light and fields of view; the old one
shows what was forgotten. Results are kept as they come. Started again, it goes on where it was:

    python benchmarks/recipes.py --folder outputs/recipes --minutes 100
"""

import time
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from runs import compared, measured
from timing import parser, report

from depth_lightning.reporting.tables import interval, number

WAYS: dict[str, tuple[str, ...]] = {
    "head alone": ("model.freeze_encoder=true",),
    "full": (),
    "layer decay 0.8": ("optimizer.layer_decay=0.8",),
    "LoRA, rank 4": (
        "adapter=lora",
        "adapter.rank=4",
        "adapter.alpha=8",
        "optimizer.lr=1e-3",
        "optimizer.head_lr_scale=0.2",
    ),
    "LoRA, rank 16": (
        "adapter=lora",
        "adapter.rank=16",
        "adapter.alpha=32",
        "optimizer.lr=1e-3",
        "optimizer.head_lr_scale=0.2",
    ),
    "unfreezing": ("callbacks=unfreeze", "callbacks.unfreeze.unit=steps"),
    "EMA": ("callbacks=ema", "callbacks.ema.decay=0.98"),
}
"""Way → what is typed for it. All learn at 1e-4, encoder and head, but for the adapters, which are new."""
BATCH = 8
HEADER = {"images": True, "way": False, "AbsRel, new look": True, "95 %": True, "minus full": True, "95 % ": True}
HEADER |= {"p": True, "old look": True, "parameters": True, "s": True, "GiB": True, "runs": True}


def main() -> None:
    """Train and score what is missing, as long as there is time; print and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, default=Path("outputs/recipes"), help="of the runs")
    arguments.add_argument("--minutes", type=float, default=120, help="after which no other run is started")
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--images", type=int, nargs="+", default=[20, 100, 500])
    arguments.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("overrides", nargs="*", help="of all runs, such as data.val_images=50")
    chosen = arguments.parse_args()
    end = time.monotonic() + 60 * chosen.minutes
    folder = chosen.folder.resolve()
    common = (f"data.root={folder}/data", "report=false", *chosen.overrides)
    measured(folder / "start", "train", "experiment=rooms", *common)
    untrained = {
        name: score(folder / "untrained" / name, folder / "start", look, common)
        for name, look in {"new": "daylight", "old": "usual"}.items()
    }
    done = {"0 not at all": [{**untrained, "parameters": 0}]}
    for seed, images, way in product(range(chosen.seeds), chosen.images, chosen.ways):
        run = folder / f"{images}_{way.replace(', ', ' ').replace(' ', '_')}_{seed}"
        if time.monotonic() < end or (run / "old" / "result.json").is_file():
            done.setdefault(f"{images} {way}", []).append(one(run, folder, images, way, seed, chosen.steps, common))
            save(done)


def one(
    run: Path, folder: Path, images: int, way: str, seed: int, steps: int, common: tuple[str, ...]
) -> dict[str, Any]:
    """A fine-tune on the new look, and its error on the old one."""
    epochs = max(1, round(steps / (images // BATCH)))
    start = (f"model.weights={folder}/start/checkpoints/best.ckpt", "model.init=all", f"seed={seed}")
    data = ("data.look=daylight", f"data.train_images={images}", f"data.batch_size={BATCH}")
    length = (f"trainer.max_epochs={epochs}", f"trainer.check_val_every_n_epoch={epochs}", "baseline=false")
    if way == "unfreezing":  # a layer more in each of as many parts as a tiny encoder has, and two for the head alone
        length += (f"callbacks.unfreeze.head_alone={steps // 5}", f"callbacks.unfreeze.every={max(1, steps // 15)}")
    rates = ("optimizer.lr=1e-4", "optimizer.head_lr_scale=1")
    new = measured(run / "new", "train", "experiment=rooms", *common, *start, *data, *length, *rates, *WAYS[way])
    old = score(run / "old", run / "new", "usual", common)
    state = torch.load(run / "new/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    return {"new": new, "old": old, "parameters": sum(moments["exp_avg"].numel() for moments in state.values())}


def score(folder: Path, run: Path, look: str, common: tuple[str, ...]) -> dict[str, Any]:
    """The error of a run's network on a look."""
    typed = ("data=rooms", f"data.look={look}", *(word for word in common if word.startswith("data.")))
    typed += (f"checkpoint={run}/checkpoints/best.ckpt", "panels=0", "breakdowns=false")
    return measured(folder, "evaluate", *typed)


def save(done: dict[str, list[dict[str, Any]]]) -> None:
    """The means over the seeds, with intervals by image, and differences from fine-tuning all with as many images."""
    rows = []
    for name, runs in done.items():
        images, way = name.split(" ", 1)
        reference = done.get(f"{images} full", runs)[: len(runs)]
        new, old = (
            compared(*([Path(each[look]["folder"]) for each in group[: len(reference)]] for group in (runs, reference)))
            for look in ("new", "old")
        )
        less, more = new.difference_interval
        apart = [f"{new.difference:+.4f}", f"{less:+.4f} to {more:+.4f}", f"{new.p:.4f}"] if way != "full" else [""] * 3
        took = [mean(each["new"][key] for each in runs) for key in ("seconds", "memory_gib")]
        measures = [f"{runs[0]['parameters']:,}", f"{took[0]:.0f}", f"{took[1]:.2f}", str(len(runs))]
        rows.append([images, way, number(new.abs_rel), interval(new.interval), *apart, number(old.abs_rel), *measures])
    report("recipes", HEADER, rows, {"runs": done})


if __name__ == "__main__":
    main()
