"""Pseudo-labels: a teacher's disparity for images without depth, in files that `data=pairs` reads."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np

from depth_lightning.atomic import atomically, write_bytes, write_text
from depth_lightning.data.files import read_map
from depth_lightning.inference.inputs import Input
from depth_lightning.inference.outputs import is_finished
from depth_lightning.inference.predict import Prediction
from depth_lightning.reporting.colour import robust_range
from depth_lightning.settings import SettingError, number, one_of, optional

Format = Literal["npz", "png"]
RECORD: Final = "label.json"
"""The settings of a folder of labels."""
MANIFEST: Final = "manifest.csv"
_COLUMNS: Final = ("image", "depth", "scene", "kind", "depth_scale", "depth_offset", "invalid")
_LARGEST: Final = 65535
_NEAREST_M: Final = 1e-3
_AS_STORED: Final = {"depth_scale": 1, "depth_offset": 0}


@dataclass(frozen=True)
class Labels:
    """Writes one label per image, and the table of all labels.

    Disparity is that of the network, or 1 / depth of a metric one. Pixels that are not confident are holes.

    Args:
        folder: created if it is missing.
        metric: whether the network predicts metres.
        format: "npz", float16 with NaN in holes; or "png", 16 bits over the image's range, 0 in holes, with a file for
            the scale beside it.
        max_disagreement: share of the prediction's range (2nd to 98th percentile) by which that of the mirrored
            image may differ; pixels beyond are holes. None: every pixel counts.
        sky: a folder with masks under the names of the images, `<name>.png`; where they are not 0, disparity is 0. An
            image without a mask has no known sky.

    Raises:
        SettingError: an argument is out of range, or `sky` is no folder.
    """

    folder: Path
    metric: bool
    format: Format = "npz"
    max_disagreement: float | None = None
    sky: Path | None = None

    def __post_init__(self) -> None:
        one_of("format", self.format, get_args(Format))
        optional("max_disagreement", self.max_disagreement, partial(number, above=0))
        if self.sky is not None and not self.sky.is_dir():
            raise SettingError("sky", f"is a folder of masks, <image's name>.png; there is none at {self.sky}.")

    @property
    def disagreement(self) -> bool:
        """Whether the mirrored images are to be predicted as well."""
        return self.max_disagreement is not None

    def file(self, name: str) -> Path:
        """The label of an image."""
        return self.folder / f"{name}.{self.format}"

    def unfinished(self, name: str, changed: float) -> bool:
        """Whether an image last changed at `changed`, in seconds since 1970, has no label yet."""
        return not is_finished(self.file(name), changed)

    def settings(self) -> dict[str, Any]:
        """The settings that determine the labels, beside the network's."""
        sky = self.sky and str(self.sky.resolve())
        return {"format": self.format, "max_disagreement": self.max_disagreement, "sky": sky}

    def write(
        self, name: str, image: np.ndarray, prediction: Prediction, choices: Any = None, intrinsics: Any = None
    ) -> None:
        """Write the label of an image.

        Raises:
            OSError: a file cannot be written.
            ValueError: the prediction contains NaN or infinities, or does not fit the format; no pixel is confident;
                the sky's mask has another size.
        """
        if not np.isfinite(prediction.depth).all():
            raise ValueError("The prediction contains NaN or infinities. Check the weights, or use precision=float32.")
        disparity, apart = prediction.depth, prediction.disagreement
        if self.metric:
            disparity = 1 / np.maximum(disparity, _NEAREST_M)
        confident = np.ones(disparity.shape, bool)
        if self.max_disagreement is not None:
            assert apart is not None
            low, high = robust_range(prediction.depth)
            confident = apart <= self.max_disagreement * (high - low)
        if self.sky is not None and (mask := self.sky / f"{name}.png").is_file():
            sky = read_map(mask) != 0
            if sky.shape != disparity.shape:
                raise ValueError(f"{mask}: expected a mask of the image's size {disparity.shape}, found {sky.shape}.")
            disparity, confident = np.where(sky, 0, disparity), confident | sky
        if not confident.any():
            raise ValueError(
                f"No pixel is confident: all disagree by more than max_disagreement={self.max_disagreement}."
            )
        if self.format == "npz":
            self._write_npz(name, np.where(confident, disparity, np.nan))
        else:
            self._write_png(name, disparity, confident)

    def _write_npz(self, name: str, disparity: np.ndarray) -> None:
        with np.errstate(over="ignore"):
            half = disparity.astype(np.float16)
        if np.isinf(half).any():
            raise ValueError(f"Disparity reaches {np.nanmax(disparity):.4g}, and float16 65504. Use format=png.")
        with atomically(self.file(name)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, disparity=half)

    def _write_png(self, name: str, disparity: np.ndarray, confident: np.ndarray) -> None:
        low, high = float(disparity[confident].min()), float(disparity[confident].max())
        step = (high - low) / (_LARGEST - 1) or 1.0
        values = np.where(confident, np.rint((disparity - low) / step) + 1, 0).clip(0, _LARGEST).astype(np.uint16)
        scale = {"depth_scale": 1 / step, "depth_offset": low - step}
        write_text(_scale_file(self.file(name)), json.dumps(scale) + "\n")  # first: the label is then complete
        write_bytes(self.file(name), cv2.imencode(".png", values)[1].tobytes())

    def write_manifest(self, images: Sequence[Input]) -> int:
        """Write the table of the labels that there are; of several processes, the last one's is complete.

        Args:
            images: all of them, not only this process's. Their folders are the scenes, if there are several.

        Returns:
            The number of labels.
        """
        written: list[tuple[str, ...]] | None = None
        while (rows := self._rows(images)) != written:  # another process, meanwhile, may have replaced a longer table
            table = csv.writer(text := io.StringIO(newline=""))
            table.writerows([_COLUMNS, *rows])
            write_text(self.folder / MANIFEST, text.getvalue())
            written = rows
        return len(rows)

    def _rows(self, images: Sequence[Input]) -> list[tuple[str, ...]]:
        labelled = [image for image in images if image.path.is_file() and self.file(image.name).is_file()]
        several = len({os.path.dirname(image.name) for image in labelled}) > 1  # noqa: PTH120
        return [self._row(image, several) for image in labelled]

    def _row(self, image: Input, several_folders: bool) -> tuple[str, ...]:
        folder, path = self.folder.resolve(), image.path.resolve()
        # Relative where both are moved together.
        shown = os.path.relpath(path, folder) if path.is_relative_to(folder.parent) else str(path)
        label, scale, hole = self.file(image.name), _AS_STORED, "-1"  # NaN is the hole, and 0 a disparity
        if self.format == "png":
            scale, hole = json.loads(_scale_file(label).read_text(encoding="utf-8")), "0"
        numbers = (repr(scale[key]) for key in ("depth_scale", "depth_offset"))
        scene = Path(image.name).parent.as_posix() if several_folders else ""
        return (shown, label.relative_to(self.folder).as_posix(), scene, "disparity", *numbers, hole)


def _scale_file(label: Path) -> Path:
    return label.with_suffix(".scale.json")
