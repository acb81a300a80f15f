"""Depth maps that any model has written to files, scored in the place of a network."""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from depth_lightning.data.bad_samples import path_of, same_aspect
from depth_lightning.data.files import RASTERS, read_map
from depth_lightning.metrics import DepthMetrics
from depth_lightning.sample import DepthBatch, DepthDataset
from depth_lightning.settings import printable
from depth_lightning.training import DepthModule
from depth_lightning.wording import counted

log = logging.getLogger(__name__)

PredictionKind = Literal["metres", "up_to_scale", "disparity"]

SUFFIXES = (".npy", ".npz", ".exr", ".pfm", ".h5", *RASTERS)
"""Of several files of one image, the first in this order counts: 16 bits hold less."""
PICTURES = ("_colour.png", "_side_by_side.png", "_uncertainty.png", "_uncertainty.npy")
"""What predict.py writes beside its depth maps."""
ENDINGS = ("_depth", "_disparity")
"""Of the names that predict.py gives its depth maps."""
SHOWN = 3


class SavedPredictions(DepthModule):
    """Reads the prediction of each image of a batch from a folder, instead of computing it.

    Args:
        folder: depth maps, named like the images below the data's root, in the same folders or in fewer.
        kind: what a value means; None for what predict.py recorded there, or else metres.
        scale: stored values per metre; None for 1, or in PNG files of predict.py the recorded scale.
        metrics: under whose protocol they are scored.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the protocol scores metres, and the predictions are none.
    """

    def __init__(self, folder: Path, kind: PredictionKind | None, scale: float | None, metrics: DepthMetrics) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"predictions={folder}: there is no such folder.")
        recorded = _recorded(folder)
        relative = recorded.get("network", {}).get("output") == "relative"
        self.kind: PredictionKind = kind or ("disparity" if relative else "metres")
        if self.kind != "metres" and metrics.protocol.alignment == "none":
            protocol = "affine_disparity" if self.kind == "disparity" else "median_scaled"
            raise ValueError(
                f"Predictions that are {self.kind} have no metres, which protocol.alignment=none would score. Use "
                f"protocol={protocol}."
            )
        super().__init__(_Nothing("relative" if self.kind == "disparity" else "metric"), metrics)  # type: ignore[arg-type]
        self.folder, self._scale = folder, scale
        self._scale_of_png = float(recorded.get("png", {}).get("values_per_metre", 1.0))
        self._files = _listed(folder)

    def check_complete(self, data: DepthDataset) -> None:
        """Find the file of every image before any is scored, and log how many files belong to none.

        Raises:
            ValueError: an image has no prediction, or shares it with another, or there are several.
        """
        missing, used = [], dict[Path, str]()
        for index in range(len(data)):
            name = path_of(data, index)
            try:
                file = self._file(name)
            except FileNotFoundError:
                missing.append(name)
                continue
            if file in used:
                raise ValueError(f"{file} fits {used[file]} and {name}. Name predictions like the data's folders.")
            used[file] = name
        if missing:
            raise ValueError(
                f"predictions={self.folder}: {len(missing)} of {len(data)} images have no prediction: "
                f"{_first(missing)}. A file is named like its image, with one of {', '.join(SUFFIXES)}."
            )
        rest = sorted(str(path) for files in self._files.values() for path in files if path not in used)
        if rest:
            log.info(
                f"predictions={self.folder}: {counted(len(rest), 'file')} of no image of this split: {_first(rest)}."
            )

    def predict_batch(self, batch: DepthBatch) -> Tensor:
        """(b, h, w) predictions at the resolution of the batch's ground truth."""
        height, width = batch.target.shape[-2:]
        maps = [self._read(id, (height, width)) for id in batch.id]
        upsampled = [self.metrics.protocol.upsampled(torch.from_numpy(each)[None], height, width) for each in maps]
        return torch.cat(upsampled).to(batch.target.device)

    def _read(self, id: str, size: tuple[int, int]) -> np.ndarray:
        path = self._file(id)
        values = read_map(path).astype(np.float32)
        if not same_aspect(values.shape, size):
            raise ValueError(f"{path}: expected the aspect of {id}, {size[0]}×{size[1]} (h×w), found {values.shape}.")
        scale = self._scale or (self._scale_of_png if path.suffix.lower() in RASTERS else 1.0)
        values /= np.float32(scale)
        if not np.isfinite(values).all() or (self.kind != "disparity" and values.min() <= 0):
            raise ValueError(
                f"{path}: expected a finite prediction above 0 for every pixel, found {values.min():g} to "
                f"{values.max():g}."
            )
        return values

    def _file(self, id: str) -> Path:
        """The file whose name, and as many of its folders as there are, are those of the image."""
        wanted = _parts(PurePath(id))
        found = [
            (common, path)
            for path in self._files.get(wanted[-1], ())
            if (common := _common(wanted, _parts(path.relative_to(self.folder))))
        ]
        most = max((common for common, _ in found), default=0)
        best = [path for common, path in found if common == most]
        if not best:
            raise FileNotFoundError(id)
        first = min(best, key=lambda path: SUFFIXES.index(path.suffix.lower()))
        if others := [path for path in best if path.parent != first.parent]:
            raise ValueError(f"predictions: {id} may be {first} or {others[0]}. Name them like the data's folders.")
        return first


class _Nothing(nn.Module):
    """What a `DepthModule` asks of its network, without one."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.output, self.max_depth = output, torch.inf


def _recorded(folder: Path) -> dict[str, Any]:
    """The settings that predict.py recorded in its output folder; none for the folders of others."""
    manifest = folder / "predict.json"
    if not manifest.is_file():
        return {}
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{manifest} cannot be read ({error}).") from error


def _listed(folder: Path) -> dict[str, list[Path]]:
    """The depth maps of a folder by their names, without suffix and ending."""
    files = defaultdict[str, list[Path]](list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.endswith(PICTURES):
            files[_parts(path)[-1]].append(path)
    return files


def _parts(path: PurePath) -> tuple[str, ...]:
    name = path.stem
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return (*path.parts[:-1], name)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths share at their ends; 0 unless that is all of the shorter one."""
    shared = next((n for n, (a, b) in enumerate(zip(one[::-1], other[::-1], strict=False)) if a != b), None)
    return min(len(one), len(other)) if shared is None else 0


def _first(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(printable, names[:SHOWN])) + rest
