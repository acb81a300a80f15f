"""Does a student learn more than its teacher's data holds? The central claim of Depth Anything V2, in miniature.

A tiny teacher sees synthetic scenes alone, and labels photos of another domain; a student sees those. Both are scored
on other photos of that domain, relative, with scale and shift fitted. Beside them stands the same network trained again
on synthetic scenes from the same encoder. Every run takes the same number of steps, and its last weights are scored.
Between two looks of rendered rooms, and on real frames; it resumes:

    python benchmarks/student.py --folder outputs/student
    python benchmarks/student.py --folder outputs/student --realdata ../shared/realdata

Real photos are of one kitchen, and a few tables; the frames that are scored are of other places.
"""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from pipeline import FAST, PHOTOS, SYNTHETIC, TINY, command, write_photos
from runs import compared

from depth_lightning.atomic import atomically
from depth_lightning.data.nyu import read_h5
from depth_lightning.reporting.tables import print_rows, write_json

HELD_OUT = ("dining_room", "official", "sun", "arkit", "kitti", "kitti_lidar", "nuscenes")
"""Scenes and sets whose frames are scored; the others are the photos to be labelled."""
MIXED = ("data=mixture_base", "+data@data.parts.synthetic=rooms", "+data@data.parts.photos=pairs")
SCORING = ("protocol=affine_disparity", "protocol.max_depth=80", "data.size=84", "data.num_workers=0", "panels=0")
ARMS: dict[str, tuple[str, ...]] = {
    "teacher": (),
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
    parser.add_argument("--steps", type=int, default=600)
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
    for seed in range(chosen.seeds):
        for arm in ARMS if not chosen.table else ():
            run_arm(folder, arm, seed, (*rooms, f"data.train_images={chosen.images}"), scored, chosen.steps)
            report(folder, chosen.seeds)
    report(folder, chosen.seeds)


def run_arm(folder: Path, arm: str, seed: int, rooms: tuple[str, ...], scored: tuple[str, ...], steps: int) -> None:
    """Train one network and score it, unless it is done."""
    run, base = folder / f"{seed}" / folder_name(arm), folder / f"{seed}"
    teacher, labels = base / "teacher/checkpoints/last.ckpt", base / "labels"
    lengths = ("trainer.max_epochs=-1", f"trainer.max_steps={steps}", "trainer.check_val_every_n_epoch=null")
    lengths += (f"+trainer.val_check_interval={steps}", "data.crop=square", f"seed={seed}")
    # The same number of steps for all: TINY's limits are of epochs.
    given = tuple(word for word in TINY if not word.startswith(("trainer.max_steps", "data.crop")))
    start = f"model.weights={teacher}"
    if arm == "teacher":
        own = ("experiment=teacher", *SYNTHETIC, *rooms, "model.weights=null")
    elif arm == "synthetic again":
        own = ("experiment=teacher", *SYNTHETIC, *rooms, start)
    elif "synthetic" in arm:
        parts = [word.replace("data.", "data.parts.synthetic.", 1) for word in (*SYNTHETIC[1:], *rooms)]
        own = ("experiment=student", *MIXED, *parts, f"data.parts.photos.manifest={labels}/manifest.csv", start)
        own += ("+data.weights.photos=2", "data.every_batch=true", "data.validate_on=[photos]")
    else:
        own = ("experiment=student", f"data.manifest={labels}/manifest.csv", start)
    if not (run / "metrics.json").is_file():
        command(folder, "train", *own, *ARMS[arm], *FAST, *given, *lengths, "checkpoint=auto", f"hydra.run.dir={run}")
    if not (run / "scored/metrics.json").is_file():
        weights = f"checkpoint={run}/checkpoints/last.ckpt"
        command(folder, "evaluate", weights, *scored, *SCORING, f"hydra.run.dir={run}/scored")
    if arm == "teacher" and not (labels / "manifest.csv").is_file():
        photos = (f"input={folder}/photos", f"output={labels}", "flip_average=true")
        command(folder, "label", f"checkpoint={teacher}", *photos)


def report(folder: Path, seeds: int) -> None:
    """Print AbsRel of every arm, averaged over the seeds that all arms have, and its difference from the teacher's."""
    scored = {arm: [folder / f"{seed}" / folder_name(arm) / "scored" for seed in range(seeds)] for arm in ARMS}
    rows, results = [], {}
    for arm, all_runs in scored.items():
        done = [seed for seed, run in enumerate(all_runs) if (run / "per_image.parquet").is_file()]
        if not done:
            continue
        found = compared([all_runs[seed] for seed in done], [scored["teacher"][seed] for seed in done])
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


def folder_name(arm: str) -> str:
    """Of the arm's runs; Hydra cannot read a comma or a colon back."""
    return re.sub(r"\W+", "_", arm)


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
