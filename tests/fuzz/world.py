"""A small data set in every format, a network trained on it, and what the other commands make of both."""

import csv
import json
import os

import cv2
import h5py
import numpy as np
import torch
from in_process import call
from lightning.pytorch.callbacks import Callback

H, W, COUNT = 30, 42, 6
DEPTHS = ("png", "tif", "npy", "npz", "pfm", "exr", "h5")
"""Formats of depth maps, all in millimetres."""
SMALL = ("data.size=28", "data.batch_size=2", "data.num_workers=0")
TRAINER = ("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")


class PlantedWeight(Callback):
    """Makes a step that is recorded as an incident."""

    def on_train_batch_start(self, trainer, module, batch, index):
        module.network.head.projects[1].weight.data[0, 0] = torch.inf


def pairs(root, suffix="png"):
    """Overrides for the pairs whose depth maps have this suffix."""
    patterns = ("data.image=rgb/*.png", f"data.depth=depth/*.{suffix}", "data.depth_scale=1000", "data.val_share=0.4")
    return ("data=pairs", f"data.root={root}", *patterns, *SMALL)


def write_map(path, depth_mm):
    """Write a depth map in the format of its suffix."""
    if path.suffix in (".png", ".tif"):
        cv2.imwrite(str(path), depth_mm.astype(np.uint16))
    elif path.suffix == ".npy":
        np.save(path, depth_mm)
    elif path.suffix == ".npz":
        np.savez_compressed(path, depth=depth_mm)
    elif path.suffix == ".pfm":
        path.write_bytes(b"Pf\n%d %d\n-1.0\n" % (W, H) + depth_mm[::-1].astype("<f4").tobytes())
    elif path.suffix == ".exr":
        import OpenEXR

        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": depth_mm.astype(np.float32)}).write(str(path))
    else:
        with h5py.File(path, "w") as file:
            file["depth"] = depth_mm


def make(folder):
    """Make everything below a folder."""
    rng = np.random.default_rng(0)
    for kind in ("rgb", "depth", "mask"):
        (folder / kind).mkdir(parents=True)
    for split in ("train", "val"):
        (folder / "nyu" / split / "scene").mkdir(parents=True)
    for number in range(COUNT):
        image = cv2.resize(rng.integers(0, 256, (5, 7, 3), np.uint8), (W, H))
        depth_mm = np.linspace(800, 5000, H * W, dtype=np.float32).reshape(H, W) + 100 * number
        cv2.imwrite(str(folder / f"rgb/{number}.png"), image)
        cv2.imwrite(str(folder / f"mask/{number}.png"), np.full((H, W), 255, np.uint8))
        for suffix in DEPTHS:
            write_map(folder / f"depth/{number}.{suffix}", depth_mm)
        with h5py.File(folder / "nyu" / ("val" if number < 2 else "train") / "scene" / f"{number:05}.h5", "w") as file:
            file["rgb"], file["depth"] = image.transpose(2, 0, 1), depth_mm / 1000
    rows = [
        {"image": f"rgb/{n}.png", "depth": f"depth/{n}.png", "mask": f"mask/{n}.png", "scene": f"s{n}",
         "split": "val" if n < 2 else "train", "depth_scale": 1000} for n in range(COUNT)
    ]  # fmt: skip
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "val.txt").write_text("rgb/0.png\nrgb/1.png depth/1.png\n")
    (folder / "photos.txt").write_text("rgb/0.png\nrgb/1.png\n")
    data = pairs(folder)
    checkpoint = f"checkpoint={folder}/run/checkpoints/best.ckpt"
    for words in (
        ("train", "model=tiny", *data, *TRAINER, "self_check=false", "hydra.run.dir=run"),
        ("evaluate", checkpoint, "trainer=cpu", "panels=0", "hydra.run.dir=scores"),
        ("evaluate", "-m", checkpoint, "trainer=cpu", "panels=0,1", "hydra.sweep.dir=sweep"),
        ("predict", checkpoint, "input=rgb", "device=cpu", "output=photos", "save=npy", "hydra.run.dir=predicting"),
        ("pack", *data, "output=shards", "shard_mb=0.01", "hydra.run.dir=packing"),
        ("train", "model=tiny", *data, *TRAINER, "hydra.run.dir=broken", "callbacks.watch.on_bad_step=skip",
         "+callbacks.planted._target_=world.PlantedWeight", "self_check=false", "trainer.num_sanity_val_steps=0"),
    ):  # fmt: skip
        outcome = call(*words, cwd=folder)
        assert outcome.status == 0 or (folder / "broken/incidents").is_dir(), outcome.printed
    assert any((folder / "broken/incidents").iterdir())


def isolated(patch, folder):
    """Set the environment so that nothing is contacted, and home is a folder of the test."""
    patch.setenv("HOME", str(folder))
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    patch.setenv("WANDB_MODE", "disabled")
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.setenv("PYTHONPATH", os.pathsep.join(("", os.environ.get("PYTHONPATH", ""))))
