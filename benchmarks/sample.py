"""Time of one training sample, from an NYU h5 file to the input of the collate function, on one core.

Ours runs as in train.py, which keeps freed memory. To isolate the contribution of the pipeline itself, the plain one is
also run that way.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import h5py
import numpy as np
import torch
from timing import best_seconds_apart, parser, report

from depth_lightning.data import NYUDepthV2
from depth_lightning.data.photometric import ColourNoise
from depth_lightning.data.transforms import TrainTransform
from depth_lightning.runs.host_memory import keep_freed_memory

HEADER = {"one sample, 480×640 to a crop of 518×518": False, "ms": True, "times faster": True}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FILES = 16
ROWS = ("ours", "ours, reading alone", "plain", "plain, memory kept", "moved to the device: colours")


class PlainPipeline:
    """The article's steps as usually implemented: on the full image, in float64, with colours on the CPU."""

    def __init__(self) -> None:
        self.augment = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.ColorJitter(brightness=0.1, contrast=0.1, saturation=0.1, hue=0.1, p=0.5),
                A.GaussNoise(std_range=(0, 5 / 255), p=0.5),
            ],
            seed=0,
        )
        self.rng = np.random.default_rng(0)

    def __call__(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Image (3, 518, 518), normalised, and depth (518, 518)."""
        with h5py.File(path) as file:
            image, depth = file["rgb"][:].transpose(1, 2, 0), file["depth"][:]
        augmented = self.augment(image=np.ascontiguousarray(image), mask=depth)
        resized = cv2.resize(augmented["image"] / 255.0, (686, 518), interpolation=cv2.INTER_CUBIC)
        depth = cv2.resize(augmented["mask"], (686, 518), interpolation=cv2.INTER_NEAREST)
        left = self.rng.integers(686 - 518 + 1)
        normalised = ((resized - MEAN) / STD)[:, left : left + 518].transpose(2, 0, 1)
        return np.ascontiguousarray(normalised, np.float32), np.ascontiguousarray(depth[:, left : left + 518])


def main() -> None:
    """Measure, print and save."""
    chosen = parser(__doc__, repeats=5).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_frames(Path(folder))
        candidates = {name: (name, Path(folder)) for name in ROWS}
        seconds = best_seconds_apart(samples_of, candidates, chosen.repeats)
    milliseconds = {name: 1000 * value / FILES for name, value in seconds.items()}
    rows = [[name, f"{value:.2f}", f"{milliseconds['plain'] / value:.1f}"] for name, value in milliseconds.items()]
    report("sample", HEADER, rows, {"milliseconds": milliseconds})


def samples_of(name: str, root: Path) -> Callable[[], object]:
    """A function that makes `FILES` samples, or changes their colours, on one thread."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if name != "plain":
        keep_freed_memory()
    dataset, transform, plain = NYUDepthV2(root, split="train"), TrainTransform(), PlainPipeline()
    if name == "ours":
        return lambda: [transform(dataset[index], index) for index in range(FILES)]
    if name == "ours, reading alone":
        return lambda: [dataset[index] for index in range(FILES)]
    if name.startswith("plain"):
        paths = sorted((root / "train").rglob("*.h5"))
        return lambda: [plain(path) for path in paths]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    crops = [torch.from_numpy(transform(dataset[index], index).image.copy()) for index in range(FILES)]
    images, colour = torch.stack(crops).permute(0, 3, 1, 2).contiguous().to(device), ColourNoise()

    def change_colours() -> None:
        colour(images, range(FILES))
        if device.type == "cuda":
            torch.cuda.synchronize()

    return change_colours


def write_frames(root: Path, val: int = 1) -> None:
    """Write frames like the published files: rgb (3, 480, 640) uint8, depth (480, 640) float32, uncompressed."""
    rng = np.random.default_rng(0)
    for split, count in (("train", FILES), ("val", val)):
        folder = root / split / "room"
        folder.mkdir(parents=True)
        for number in range(count):
            smooth = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
            with h5py.File(folder / f"{number:05d}.h5", "w") as file:
                file["rgb"] = smooth.transpose(2, 0, 1)
                file["depth"] = cv2.resize(rng.uniform(0.5, 9.5, (12, 16)), (640, 480)).astype(np.float32)


if __name__ == "__main__":
    main()
