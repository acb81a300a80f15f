"""Depth Anything V2's own pipeline at toy size: teacher, labels, student, fine-tune, and four ways to measure depth.

Everything is rendered, nothing is downloaded. Photos are rooms without their depth, of another look than the teacher's
scenes. The teacher's encoder stands in for DINOv2's. Twenty minutes on a core; started again, it goes on where it was:

    python benchmarks/pipeline.py --folder outputs/pipeline
"""

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from depth_lightning.atomic import atomically, write_bytes
from depth_lightning.data import RenderedRooms
from depth_lightning.inference import Predictor, load
from depth_lightning.metrics import align
from depth_lightning.reporting.colour import DEPTH_COLOURS, colourise, robust_range
from depth_lightning.reporting.tables import print_rows, write_json
from depth_lightning.sample import DepthSample

ROOT = Path(__file__).resolve().parents[1]
TINY = ("model=tiny", "trainer=cpu", "trainer.max_steps=-1", "trainer.accumulate_grad_batches=1", "report=false")
TINY += ("trainer.gradient_clip_val=1.0", "data.batch_size=16", "data.size=84", "data.crop=null", "data.num_workers=0")
# At 84 pixels gradients are six times those at 518, and with the usual weight of 2 they would drown the depth itself.
TINY += ("loss.disparity.gradient_weight=0.3",)
FAST = ("optimizer.lr=5e-4", "optimizer.head_lr_scale=2")
SYNTHETIC = ("data=rooms", "data.look=mixed", "data.sky=far")
PHOTOS = ("data=rooms", "data.look=usual")
WAYS = {
    ("zero-shot", "relative"): ("student", "affine_disparity"),
    ("zero-shot", "absolute"): ("synthetic_metres", "metric"),
    ("in-domain", "relative"): ("photos_relative", "affine_disparity"),
    ("in-domain", "absolute"): ("photos_metres", "metric"),
}
"""Data and depth → the run that is scored on photos whose depth is known, and the protocol."""
PICTURED = 4


class Counts(NamedTuple):
    """Images and epochs; `times` shrinks them for a test."""

    synthetic: int = 1600
    photos: int = 800
    labelled_photos: int = 800
    val: int = 100
    epochs: int = 6

    def times(self, factor: float) -> "Counts":
        """At least two batches of everything."""
        return Counts(*(max(32, int(factor * count)) for count in self[:-1]), max(1, round(factor * self.epochs)))


def main() -> None:
    """Run what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("outputs/pipeline"), help="of everything that is made")
    parser.add_argument(
        "--times", type=float, default=1.0, help="factor of images and epochs; 0.02 shows that it works"
    )
    chosen = parser.parse_args()
    folder = chosen.folder.resolve()
    run_all(folder, Counts().times(chosen.times))
    scores = {way: json.loads((folder / "_".join(way) / "metrics.json").read_text()) for way in WAYS}
    rows = [
        [*way, WAYS[way][0], WAYS[way][1], *(f"{found['metrics'][name]:.3f}" for name in ("abs_rel", "delta1"))]
        for way, found in scores.items()
    ]
    header = {"data": False, "depth": False, "network": False, "protocol": False, "AbsRel": True, "δ1": True}
    print_rows("Four ways to measure depth, on photos", header, [rows[:2], rows[2:]], [f"Everything is in {folder}."])
    write_json(folder / "pipeline.json", {"_".join(way): found["metrics"] for way, found in scores.items()})


def run_all(folder: Path, counts: Counts) -> None:
    """The article's commands in turn."""
    rooms = (f"data.train_images={counts.synthetic}", f"data.val_images={counts.val}", f"data.root={folder}/rooms")
    synthetic, labelled = (*SYNTHETIC, *rooms), (*PHOTOS, *rooms[1:], f"data.train_images={counts.labelled_photos}")
    photos, labels = folder / "photos", folder / "labels"
    if not photos.is_dir():
        write_photos(photos, folder / "rooms", counts.photos)
    run = partial(train, folder, counts.epochs)
    best = {name: f"{folder}/{name}/checkpoints/best.ckpt" for name in ("teacher", "student")}

    # 1. The teacher sees synthetic depth alone.
    run("teacher", "experiment=teacher", *synthetic, "model.weights=null", *FAST)
    # 2. Its disparity for photos.
    if not (labels / "manifest.csv").is_file():
        command(
            folder, "label", f"checkpoint={best['teacher']}", f"input={photos}", f"output={labels}", "flip_average=true"
        )
    # 3. The student sees photos alone.
    data = f"data.manifest={labels}/manifest.csv"
    run("student", "experiment=student", data, f"model.weights={best['teacher']}", *FAST)
    # 4. Fine-tunes: encoder from the student, random head; relative, the head as well.
    start = ("experiment=nyu_vits", f"model.weights={best['student']}", "augmentation=authors", *FAST)
    run("synthetic_metres", *start, *synthetic)
    run("photos_metres", *start, *labelled)
    # Without the self-check, which would find that a student of a test knows nothing.
    slow = ("optimizer.lr=1e-4", "optimizer.head_lr_scale=2", "self_check=false")
    run("photos_relative", "experiment=relative", *labelled, f"model.weights={best['student']}", *slow)
    # 5. Four ways, on photos whose depth is known.
    for way, (name, protocol) in WAYS.items():
        if not (folder / "_".join(way) / "metrics.json").is_file():
            scored = (
                f"checkpoint={folder}/{name}/checkpoints/best.ckpt",
                f"protocol={protocol}",
                *labelled,
                "data.size=84",
            )
            command(folder, "evaluate", *scored, "panels=0", f"hydra.run.dir={folder}/{'_'.join(way)}")
    write_bytes(folder / "pipeline.png", picture(folder, counts))


def train(folder: Path, epochs: int, name: str, *overrides: str) -> None:
    """Train, or go on, unless the run is complete."""
    if not (folder / name / "metrics.json").is_file():
        own = (*overrides, *TINY, f"trainer.max_epochs={epochs}", "checkpoint=auto", f"hydra.run.dir={folder}/{name}")
        command(folder, "train", *own)


def command(folder: Path, *words: str) -> None:
    """Run a command as it is typed."""
    print("depth-lightning", *(word.replace(f"{folder}/", "") for word in words), flush=True)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-m", "depth_lightning", *words], check=True, env={**os.environ, "PYTHONPATH": path}
    )


def write_photos(folder: Path, rooms: Path, count: int) -> None:
    """Rooms of the photos' look as JPEGs, none of them among those whose depth is used."""
    source = RenderedRooms(rooms, "train", count, seed=1, look="usual")
    with atomically(folder) as aside:
        for index in range(len(source)):
            sample = source[index]
            path = aside / sample.scene / f"{index:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), sample.image[..., ::-1])


def picture(folder: Path, counts: Counts) -> bytes:
    """Photos in rows, in columns depth: true, of the teacher and the student (aligned), of the two in metres; a PNG."""
    source = RenderedRooms(folder / "rooms", "val", counts.val, look="usual")
    names = ("teacher", "student", "synthetic_metres", "photos_metres")
    networks = [load(folder / name / "checkpoints/best.ckpt", device="cpu") for name in names]
    rows = []
    for index in range(0, len(source), max(1, len(source) // PICTURED))[:PICTURED]:
        sample = source[index]
        low, high = robust_range(sample.target[sample.mask])
        maps = [(sample.target, sample.mask), *((depth_m(network, sample), None) for network in networks)]
        drawn = [colourise(each, low, high, colours=DEPTH_COLOURS, mask=mask) for each, mask in maps]
        framed = [np.pad(each, ((2, 2), (2, 2), (0, 0)), constant_values=255) for each in (sample.image, *drawn)]
        rows.append(np.concatenate(framed, axis=1))
    return cv2.imencode(".png", np.concatenate(rows)[..., ::-1])[1].tobytes()


def depth_m(network: Predictor, sample: DepthSample) -> np.ndarray:
    """A network's depth in metres; of a relative one, with scale and shift fitted in disparity."""
    prediction, target, mask = map(torch.from_numpy, (network.predict(sample.image), sample.target, sample.mask))
    alignment = "none" if network.metric else "scale_shift_disparity"
    depth: np.ndarray = align(prediction[None], target[None], mask[None], alignment).depth[0].numpy()
    return depth


if __name__ == "__main__":
    main()
