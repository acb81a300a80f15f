"""The files of a prediction, each written atomically, and the settings that they were made with."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, get_args

import cv2
import numpy as np

from depth_lightning.atomic import atomically, write_bytes, write_text
from depth_lightning.camera import UNKNOWN
from depth_lightning.data.reading import reading
from depth_lightning.inference.cameras import PhotoCamera
from depth_lightning.inference.point_cloud import Intrinsics, intrinsics_from_fov, point_cloud, write_ply
from depth_lightning.inference.predict import Prediction
from depth_lightning.reporting.colour import BACKGROUND, DEPTH_COLOURS, colourise, robust_range, scale_bar
from depth_lightning.settings import SettingError, boolean, number, one_of, optional, several, whole_number

Save = Literal["png", "npy", "npz", "colour", "side_by_side", "cloud", "uncertainty", "video"]
MANIFEST: Final = "predict.json"
_LARGEST: Final = 65535


@dataclass(frozen=True)
class CloudOptions:
    """How point clouds are made.

    Args:
        intrinsics: the camera, for images of `calibrated_size`.
        calibrated_size: (width, height); None if the intrinsics apply to every image unscaled.
        fov_deg: the horizontal field of view, instead of intrinsics.
        max_range_m: see `point_cloud`.
        remove_flying: see `point_cloud`.

    Raises:
        SettingError: an argument is out of range.
    """

    intrinsics: Intrinsics | None = None
    calibrated_size: tuple[int, int] | None = None
    fov_deg: float | None = None
    max_range_m: float | None = None
    remove_flying: bool = False

    def __post_init__(self) -> None:
        if self.calibrated_size is not None:
            several("calibrated_size", self.calibrated_size, 2, "[width,height]", whole_number)
        if self.fov_deg is not None:
            intrinsics_from_fov(self.fov_deg, 1, 1)
        optional("max_range_m", self.max_range_m, partial(number, above=0))
        boolean("remove_flying", self.remove_flying)

    def camera(self, width: int, height: int) -> Intrinsics:
        """The camera for an image of this size.

        Raises:
            ValueError: the intrinsics do not fit this image, or there are none.
        """
        if self.intrinsics is None:
            if self.fov_deg is None:
                raise ValueError(
                    "A point cloud needs the camera, which neither the options nor EXIF say: type camera.fov_deg=…, "
                    "degrees across the longer side (phones: about 70), or camera.intrinsics=[fx,fy,cx,cy]."
                )
            return intrinsics_from_fov(self.fov_deg, width, height)
        if self.calibrated_size is not None:
            return self.intrinsics.scaled(self.calibrated_size, (width, height))
        if not (0 <= self.intrinsics.cx < width and 0 <= self.intrinsics.cy < height):
            raise ValueError(
                f"The intrinsics' centre ({self.intrinsics.cx:g}, {self.intrinsics.cy:g}) is outside this image of "
                f"{width}×{height}. Set the image size they were calibrated for: cloud.calibrated_size=[width,height]"
            )
        return self.intrinsics


@dataclass(frozen=True)
class Outputs:
    """Writes the output files of every image into a folder.

    Args:
        folder: created if it is missing.
        save: the kinds of files to write.
        metric: whether the network predicts metres.
        max_depth: of a metric network, in metres.
        png_scale: values per metre in 16-bit PNGs.
        range: the ends of the colour scale, in metres or disparity; by default computed per image or per clip.
        cloud: options of point clouds.
        overwrite: write finished files again.

    Raises:
        SettingError: an argument is out of range.
        ValueError: `save` contains a kind that this network cannot produce, or an option that it needs is missing.
    """

    folder: Path
    save: Sequence[Save]
    metric: bool
    max_depth: float
    png_scale: float = 1000.0
    range: tuple[float, float] | None = None
    cloud: CloudOptions = CloudOptions()
    overwrite: bool = False

    def __post_init__(self) -> None:
        number("png_scale", self.png_scale, above=0)
        boolean("overwrite", self.overwrite)
        if self.range is not None:
            low, high = several("range", self.range, 2, "[low,high]", number)
            if low >= high:
                raise SettingError("range", f"is [low,high] with low below high, found {[low, high]}.")
        if not self.save:
            raise SettingError("save", f"is a list of {', '.join(get_args(Save))}; found none.")
        for kind in self.save:
            one_of("save", kind, get_args(Save), " Give several as a list: save=[png,colour].")
        if "cloud" in self.save:
            if not self.metric:
                raise ValueError(
                    "save=[cloud] needs metres, and this network is relative: it predicts disparity up to scale "
                    "and shift. Use a metric network, or leave cloud out."
                )
            if self.cloud.intrinsics is not None and self.cloud.fov_deg is not None:
                raise ValueError("save=[cloud] needs one camera: found both cloud.intrinsics and cloud.fov_deg.")
        if "png" in self.save and self.metric and self.max_depth * self.png_scale > _LARGEST:
            raise ValueError(
                f"A 16-bit PNG with png_scale={self.png_scale:g} values per metre overflows at "
                f"{_LARGEST / self.png_scale:g} m, and this network reaches {self.max_depth:g} m. "
                f"Use a smaller png_scale, at most {int(_LARGEST / self.max_depth)}, or save=[npy]."
            )

    @property
    def disagreement(self) -> bool:
        """Whether the mirrored images are to be predicted as well."""
        return "uncertainty" in self.save

    @property
    def quantity(self) -> str:
        """The quantity in the file names."""
        return "depth" if self.metric else "disparity"

    def files(self, name: str) -> dict[Save, list[Path]]:
        """The files of an image, or of a frame of a video, in the order in which they are written."""
        suffixes: dict[Save, list[str]] = {
            "png": [f"{self.quantity}.png"] if self.metric else [f"{self.quantity}.json", f"{self.quantity}.png"],
            "npy": [f"{self.quantity}.npy"],
            "npz": [f"{self.quantity}.npz"],
            "colour": ["colour.png"],
            "side_by_side": ["side_by_side.png"],
            "cloud": ["cloud.ply"],
            "uncertainty": ["uncertainty.png", "uncertainty.npy"],
        }
        return {
            choice: [self.folder / f"{name}_{suffix}" for suffix in suffixes[choice]]
            for choice in self.save
            if choice != "video"
        }

    def unfinished(self, name: str, changed: float) -> set[Save]:
        """The kinds still to be written for an image last changed at `changed`, in seconds since 1970."""
        files = self.files(name)
        if self.overwrite:
            return set(files)
        return {choice for choice, paths in files.items() if not is_finished(paths[-1], changed)}

    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings that determine the content of each requested kind of file."""
        cloud = {**vars(self.cloud), "intrinsics": self.cloud.intrinsics and list(self.cloud.intrinsics)}
        cloud["calibrated_size"] = self.cloud.calibrated_size and list(self.cloud.calibrated_size)
        kinds: dict[str, dict[str, Any]] = {"cloud": cloud}
        kinds["png"] = {"values_per_metre": self.png_scale} if self.metric else {}
        for kind in ("colour", "side_by_side", "video"):
            kinds[kind] = {"range": self.range and list(self.range)}
        return {kind: kinds.get(kind, {}) for kind in self.save}

    def write(
        self,
        name: str,
        image: np.ndarray,
        prediction: Prediction,
        choices: set[Save],
        colour_range: tuple[float, float] | None = None,
        intrinsics: np.ndarray = UNKNOWN,
    ) -> None:
        """Write the chosen files of an image.

        Args:
            name: the name in its `Input`.
            image: (h, w, 3) uint8 RGB.
            prediction: of that image.
            choices: the kinds of files, from `unfinished`.
            colour_range: of the clip that the image belongs to.
            intrinsics: of the image, (4,), for its cloud; NaN for those of `cloud`.

        Raises:
            OSError: a file cannot be written.
            ValueError: the camera does not fit this image, or the prediction contains NaN or infinities.
        """
        depth = prediction.depth
        if not np.isfinite(depth).all():
            raise ValueError("The prediction contains NaN or infinities. Check the weights, or use precision=float32.")
        low, high = self.range or colour_range or robust_range(depth)
        files = self.files(name)

        def colour() -> np.ndarray:
            return colour_picture(depth, low, high, metric=self.metric)

        for choice, paths in files.items():
            if choice not in choices:
                continue
            if choice == "png":
                self._write_png(paths, depth)
            elif choice == "npy":
                _write_array(paths[0], depth)
            elif choice == "npz":
                with atomically(paths[0]) as aside, aside.open("wb") as file:
                    np.savez_compressed(file, **{self.quantity: depth})  # type: ignore[arg-type]
            elif choice == "colour":
                _save_picture(paths[0], colour())
            elif choice == "side_by_side":
                _save_picture(paths[0], beside(image, colour()))
            elif choice == "cloud":
                known = not np.isnan(intrinsics).any()
                camera = Intrinsics(*intrinsics) if known else self.cloud.camera(depth.shape[1], depth.shape[0])
                points = point_cloud(depth, image, camera, self.cloud.max_range_m, self.cloud.remove_flying)
                with atomically(paths[0]) as aside:
                    write_ply(aside, *points)
            elif choice == "uncertainty":
                apart = prediction.disagreement
                assert apart is not None, "predict_batch was called without disagreement=True"
                largest = robust_range(apart)[1]
                picture = colourise(apart, 0.0, largest, colours=DEPTH_COLOURS[::-1])
                unit = "m" if self.metric else ""
                _save_picture(paths[0], with_bar(picture, 0.0, largest, DEPTH_COLOURS[::-1], unit))
                _write_array(paths[1], apart)

    def _write_png(self, paths: Sequence[Path], depth: np.ndarray) -> None:
        if self.metric:
            if (deepest := float(depth.max())) * self.png_scale > _LARGEST:  # of a wide range of focal lengths
                raise ValueError(
                    f"A 16-bit PNG with png_scale={self.png_scale:g} values per metre overflows at "
                    f"{_LARGEST / self.png_scale:g} m, and this image reaches {deepest:g} m. Use a smaller png_scale, "
                    f"at most {int(_LARGEST / deepest)}, or save=[npy]."
                )
            # By convention, 0 in such files means no measurement.
            values = (depth * self.png_scale).clip(1, _LARGEST)
        else:
            low, high = float(depth.min()), float(depth.max())
            step = (high - low) / _LARGEST or 1.0
            values = (depth - low) / step
            scale = {"disparity": "offset + scale * value", "offset": low, "scale": step}
            write_text(paths[0], json.dumps(scale, indent=2) + "\n")
        _save_picture(paths[-1], np.rint(values).astype(np.uint16))


def colour_picture(depth: np.ndarray, low: float, high: float, *, metric: bool) -> np.ndarray:
    """(h, w) → (h', w, 3) uint8 RGB: near is bright, with a scale bar below."""
    colours = DEPTH_COLOURS if metric else DEPTH_COLOURS[::-1]
    return with_bar(colourise(depth, low, high, colours=colours), low, high, colours, "m" if metric else "")


def with_bar(picture: np.ndarray, low: float, high: float, colours: np.ndarray, unit: str) -> np.ndarray:
    """The picture, (h, w, 3) uint8 RGB, above the scale bar of its colours."""
    width = picture.shape[1]
    font_size = int(np.clip(width // 32, 10, 48))
    bar = scale_bar(width, low, high, colours=colours, font_size=font_size, unit=unit)
    gap = np.full((font_size // 2, width, 3), BACKGROUND, np.uint8)
    return np.concatenate([picture, gap, bar])


def beside(image: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Two pictures of the same width side by side, the first padded below to the height of the second."""
    left = np.full(picture.shape, BACKGROUND, np.uint8)
    left[: len(image)] = image
    return np.concatenate([left, picture], axis=1)


def is_finished(path: Path, changed: float) -> bool:
    """Whether the file exists and is not older than its source, last changed at `changed`."""
    return path.is_file() and path.stat().st_mtime >= changed


def claim(folder: Path, settings: Mapping[str, Any], files: Iterable[Path], record: str = MANIFEST) -> None:
    """Record the settings of a folder's files, or check that they match those already recorded there.

    Args:
        folder: created if it is missing.
        settings: name → plain values; recorded settings that are not among them are kept unchanged.
        files: the files to be written. Without recorded settings, none of them may exist.
        record: name of the file in the folder that records the settings.

    Raises:
        OSError: the folder cannot be written to.
        FileExistsError: a file exists, but no settings are recorded.
        ValueError: the folder's files were made with other settings.
    """
    manifest = folder / record
    wanted: dict[str, Any] = json.loads(json.dumps(settings))
    recorded: dict[str, Any] = {}
    present = None if manifest.is_file() else next((file for file in files if file.exists()), None)
    if manifest.is_file():  # perhaps only now, by another process
        with reading(manifest, "the settings of a folder of predictions", "Give another output=…"):
            recorded = dict(json.loads(manifest.read_text(encoding="utf-8")).items())
        differing = [
            f"{label} was {before!r} and is {after!r}"
            for key in wanted.keys() & recorded.keys()
            for label, before, after in _differences(key, recorded[key], wanted[key])
        ]
        if differing:
            raise ValueError(
                f"output={folder} holds predictions made with other settings: {'; '.join(sorted(differing))}. "
                "Give another output=…, or remove that folder."
            )
    elif present is not None:
        raise FileExistsError(
            f"{present} exists, but {record}, which records its settings, is missing. Give another output=…"
        )
    try:
        write_text(manifest, json.dumps({**recorded, **wanted}, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise OSError(error.errno, f"output={folder} cannot be written to: {error.strerror}") from error


def record_cameras(folder: Path, cameras: Mapping[str, PhotoCamera]) -> None:
    """Record the camera of every image, and how it is known, beside the settings of a folder that is claimed."""
    manifest = folder / MANIFEST
    with reading(manifest, "the settings of a folder of predictions", "Give another output=…"):
        recorded: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
    described = {
        name: {"source": source, "intrinsics": None if np.isnan(intrinsics).any() else intrinsics.tolist()}
        for name, (intrinsics, source) in cameras.items()
    }
    recorded["cameras"] = {**recorded.get("cameras", {}), **described}
    write_text(manifest, json.dumps(recorded, indent=2, ensure_ascii=False) + "\n")


def _differences(label: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(f"{label}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield label, before, after


def _save_picture(path: Path, picture: np.ndarray) -> None:
    """(h, w) uint16, or (h, w, 3) uint8 RGB."""
    write_bytes(path, cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)[1].tobytes())


def _write_array(path: Path, array: np.ndarray) -> None:
    np.save(buffer := io.BytesIO(), array)
    write_bytes(path, buffer.getbuffer())
