"""Draw samples as they are on disk and as the network sees them: `depth-lightning show data=…`."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from depth_lightning.camera import focal_length
from depth_lightning.data import DepthDataModule
from depth_lightning.data.bad_samples import peers_of
from depth_lightning.data.sampling import draw, evenly_spread
from depth_lightning.reporting.panels import save_png, stack_panels
from depth_lightning.reporting.sample_row import draw_sample_row
from depth_lightning.runs import objects
from depth_lightning.runs.job import run_job
from depth_lightning.runs.options import check
from depth_lightning.runs.program import program
from depth_lightning.sample import DepthDataset, DepthSample, collate
from depth_lightning.wording import counted

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """The entry point."""
    run_job(show, cfg)


def show(cfg: DictConfig) -> Path:
    """Draw `cfg.images` samples of `cfg.split`; returns the path of the picture, in `cfg.run_dir`.

    Raises:
        SettingError: an option is invalid, or nothing reads it.
        ValueError: the data set has no depth maps.
    """
    check(cfg, "show")
    objects.require_depth_maps(cfg.data)
    data = objects.build_data(cfg)
    samples = data.train_data.dataset if cfg.split == "train" else data.val_data.dataset
    rows, focal_px = [], list[float]()
    for index in spread(samples.source, cfg.images):
        seen = training_draws(data, index, cfg.draws) if cfg.split == "train" else [data.val_data[index]]
        focal_px += [float(focal_length(sample.intrinsics)) for sample in seen]
        names = [f"epoch {number}" for number, _ in enumerate(seen, 1)] if cfg.split == "train" else ["validation"]
        rows.append(draw_sample_row(samples[index], dict(zip(names, seen, strict=True))))
    path = Path(cfg.run_dir) / f"{cfg.split}.png"
    save_png(path, stack_panels(rows))
    if known := [focal for focal in focal_px if focal == focal]:
        log.info(
            f"Focal length as the network sees it: {min(known):.0f} to {max(known):.0f} pixels, median "
            f"{np.median(known):.0f}."
        )
    log.info(f"{len(rows)} of {counted(len(samples), 'sample')}: {path}")
    return path


def training_draws(data: DepthDataModule, index: int, epochs: int) -> list[DepthSample]:
    """Sample `index` as the first epochs train on it: cropped, flipped, and with its colours augmented."""
    seen = []
    for epoch in range(epochs):
        sample = data.train_data[draw(data.seed, epoch, index)]
        if data.colour is not None:
            batch = collate([sample])
            image = data.colour(batch.image, batch.seed)[0].permute(1, 2, 0)
            sample = sample._replace(image=image.numpy())
        seen.append(sample)
    return seen


def spread(source: DepthDataset, images: int) -> list[int]:
    """Indices spread evenly over every part of a data set, at least one of each part."""
    parts = list(_parts(source))
    return [index for part in parts for index in evenly_spread(part, max(1, round(images / len(parts))))]


def _parts(source: DepthDataset) -> Iterator[range]:
    first = 0
    while first < len(source):
        part = peers_of(source, first)
        yield part
        first = part.stop


if __name__ == "__main__":
    program("show")
