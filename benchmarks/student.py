"""Does a student learn more than its teacher's data holds? The central claim of Depth Anything V2, in miniature.

The teacher is `rooms_tiny`, which saw synthetic scenes alone. It labels photos of another domain; a student, which
starts as its copy, sees those. Both are scored on other photos of that domain, relative, with scale and shift fitted.
Beside them stands the same copy, trained again on synthetic scenes. Every run takes the same number of steps, and its
last weights are scored. Between the looks of rendered rooms, or on real frames; it resumes:

    python benchmarks/student.py --folder outputs/student
    python benchmarks/student.py --folder outputs/student --realdata ../shared/realdata

Real photos are of one kitchen, and a few tables; the frames that are scored are of other places.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pipeline import PHOTOS, SYNTHETIC, TINY, command, write_photos
from runs import compared

from depth_lightning.atomic import atomically
from depth_lightning.data.nyu import read_h5
from depth_lightning.reporting.tables import print_rows, write_json

HELD_OUT = ("dining_room", "official", "sun", "arkit", "kitti", "kitti_lidar", "nuscenes")
"""Scenes and sets whose frames are scored; the others are the photos to be labelled."""
MIXED = ("data=mixture_base", "+data@data.parts.synthetic=rooms", "+data@data.parts.photos=pairs")
SCORING = ("protocol=affine_disparity", "protocol.max_depth=80", "data.size=84", "data.num_workers=0", "panels=0")
TEACHER = ("model=tiny", "model.output=relative", "model.weights=rooms_tiny")
START = ("model.weights=rooms_tiny", "model.init=all", "optimizer.lr=2e-4", "optimizer.head_lr_scale=1")
ARMS: dict[str, tuple[str, ...]] = {
    "synthetic again": (),
    "student": (),
    "student, nothing trimmed": ("loss.disparity.trim=0",),
    "student, not aligned": ("loss.alignment=null",),
    "student, 1 synthetic : 2 photos": (),
}


class Frame(NamedTuple):
    """A real image, and its depth in metres, 0 in holes."""

    group: str
    name: str
    image: np.ndarray
    depth_m: np.ndarray


def main() -> None:
    """Run what is not done yet, and print the table of what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/student"), help="of everything that is made")
    parser.add_argument(
        "--realdata", type=Path, help="a folder with nyu_h5/ and pairs/; without it, rooms of two looks"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--images", type=int, default=1600, help="synthetic images, and twice the photos of rooms")
    parser.add_argument("--table", action="store_true", help="print what is there, and run nothing")
    chosen = parser.parse_args()
    folder = chosen.folder.resolve() / ("real" if chosen.realdata else "looks")
    rooms = (f"data.root={folder}/rooms", "data.val_images=100")
    if chosen.realdata:
        write_frames(folder, chosen.realdata)
        scored: tuple[str, ...] = ("data=pairs", f"data.manifest={folder}/scored/manifest.csv", "split=all")
    else:
        if not (folder / "photos").is_dir():
            write_photos(folder / "photos", folder / "rooms", chosen.images // 2)
        scored = (*PHOTOS, *rooms, "data.train_images=16")
    if not chosen.table:
        score(folder, "teacher", *TEACHER, *scored)
        if not (folder / "labels/manifest.csv").is_file():
            photos = (f"input={folder}/photos", f"output={folder}/labels", "flip_average=true")
            command(folder, "label", *TEACHER, *photos)
        synthetic = (*rooms, f"data.train_images={chosen.images}")
        for arm, seed in product(ARMS, range(chosen.seeds)):
            run = run_name(arm, seed)
            train(folder, run, arm, seed, chosen.steps, synthetic)
            score(folder, run, f"checkpoint={folder}/{run}/checkpoints/last.ckpt", *scored)
            report(folder, chosen.seeds)
    report(folder, chosen.seeds)


def train(folder: Path, run: str, arm: str, seed: int, steps: int, rooms: tuple[str, ...]) -> None:
    """Train one network from the teacher's weights, unless it is done."""
    lengths = ("trainer.max_epochs=-1", f"trainer.max_steps={steps}", "trainer.check_val_every_n_epoch=null")
    lengths += (f"+trainer.val_check_interval={steps}", "data.crop=square", f"seed={seed}")
    # The same number of steps for all: TINY's limits are of epochs.
    given = tuple(word for word in TINY if not word.startswith(("trainer.max_steps", "data.crop")))
    labels = f"{folder}/labels/manifest.csv"
    if arm == "synthetic again":
        own = ("experiment=teacher", *SYNTHETIC, *rooms)
    elif "synthetic" in arm:
        parts = [word.replace("data.", "data.parts.synthetic.", 1) for word in (*SYNTHETIC[1:], *rooms)]
        own = ("experiment=student", *MIXED, *parts, f"data.parts.photos.manifest={labels}")
        own += ("+data.weights.photos=2", "data.every_batch=true", "data.validate_on=[photos]")
    else:
        own = ("experiment=student", f"data.manifest={labels}")
    if not (folder / run / "metrics.json").is_file():
        words = (*own, *ARMS[arm], *given, *START, *lengths, "checkpoint=auto", f"hydra.run.dir={folder}/{run}")
        command(folder, "train", *words)


def score(folder: Path, run: str, *typed: str) -> None:
    """Score a network on the photos whose depth is known, unless it is done."""
    if not (folder / run / "scored/metrics.json").is_file():
        command(folder, "evaluate", *typed, *SCORING, f"hydra.run.dir={folder}/{run}/scored")


def report(folder: Path, seeds: int) -> None:
    """Print AbsRel of every arm, averaged over the seeds that it has, and its difference from the teacher's."""
    rows, results = [], {}
    for arm in ("teacher", *ARMS):
        runs = ["teacher"] if arm == "teacher" else [run_name(arm, seed) for seed in range(seeds)]
        scored = [folder / run / "scored" for run in runs]
        done = [run for run in scored if (run / "per_image.parquet").is_file()]
        if not done:
            continue
        found = compared(done, [folder / "teacher/scored"] * len(done))
        results[arm] = {**found._asdict(), "seeds": len(done)}
        (low, high), (less, more) = found.interval, found.difference_interval
        apart = [f"{found.difference:+.4f} [{less:+.4f}, {more:+.4f}]", f"{found.p:.3f}"]
        rows.append([arm, str(len(done)), f"{found.abs_rel:.4f} [{low:.4f}, {high:.4f}]"])
        rows[-1] += apart if arm != "teacher" else ["", ""]
    header = {"trained": False, "seeds": True, "AbsRel": True, "minus the teacher's": True, "p": True}
    if rows:
        title = f"Scored on {results['teacher']['images']} images: {folder.name}"
        print_rows(title, header, [rows], ["95 % intervals, by image."])
        write_json(folder / "student.json", json.loads(json.dumps(results, default=float)))


def run_name(arm: str, seed: int) -> str:
    """Of a run's folder; Hydra cannot read a comma or a colon back."""
    return str(seed) + "/" + re.sub(r"\W+", "_", arm)


def write_frames(folder: Path, realdata: Path) -> None:
    """The photos to be labelled, and the frames to be scored with their manifest; both stay in `folder`."""
    if (folder / "scored").is_dir():
        return
    with atomically(folder / "photos") as photos:
        photos.mkdir()
        for frame in frames(realdata):
            if frame.group not in HELD_OUT:
                cv2.imwrite(str(photos / f"{frame.name}.png"), frame.image[..., ::-1])
    with atomically(folder / "scored") as scored:
        scored.mkdir()
        with (scored / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["image", "depth", "scene"])
            for frame in frames(realdata):
                if frame.group in HELD_OUT:
                    cv2.imwrite(str(scored / f"{frame.name}.png"), frame.image[..., ::-1])
                    np.save(scored / f"{frame.name}.npy", frame.depth_m)
                    table.writerow([f"{frame.name}.png", f"{frame.name}.npy", frame.group])


def frames(realdata: Path) -> Iterator[Frame]:
    """Every frame whose depth is in metres."""
    for path in sorted((realdata / "nyu_h5").rglob("*.h5")):
        image, depth_m = read_h5(path)
        yield Frame(path.parent.name, f"{path.parent.name}_{path.stem}", image, depth_m)
    for entry in json.loads((realdata / "pairs/index.json").read_text()):
        if entry["unit"] == "m" and entry["set"] != "tum":  # those two are among the h5 files as well
            rgb, depth = (
                cv2.imread(str(realdata / "pairs" / entry[key]), cv2.IMREAD_UNCHANGED) for key in ("rgb", "depth")
            )
            name = f"{entry['set']}_{entry['id']}".replace("/", "_")
            yield Frame(entry["set"], name, rgb[..., 2::-1], (depth / entry["scale"]).astype(np.float32))


if __name__ == "__main__":
    main()
