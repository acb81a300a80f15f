"""Images with depth maps from any source: a folder with patterns, or a manifest."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from depth_lightning import camera
from depth_lightning.data.bad_samples import same_aspect
from depth_lightning.data.calibrations import Calibration, check_intrinsics, intrinsics_of
from depth_lightning.data.encoding import DepthEncoding
from depth_lightning.data.files import RASTERS, read_image, read_map, split_key
from depth_lightning.data.images import LOOKED_AT, Exif, check_exif, check_range, derive_range
from depth_lightning.data.listing import Split, match_patterns, read_manifest
from depth_lightning.data.orientation import decide, turns
from depth_lightning.data.packing import Packing, looks_rotated
from depth_lightning.data.pair_table import OF_CAMERA, OF_ENCODING, Pair, PairTable
from depth_lightning.data.reading import naming
from depth_lightning.data.sampling import evenly_spread
from depth_lightning.data.splits import select
from depth_lightning.invocation import command_line
from depth_lightning.sample import DepthSample
from depth_lightning.settings import SettingError, number, one_of, optional, several, text, whole_number

log = logging.getLogger(__name__)

_UPRIGHT: Mapping[Exif, bool | None] = {"apply": True, "ignore": False, "auto": None}


class DepthPairs:
    """Pairs of image and depth map; the map may be smaller than its image if the aspect is the same.

    Args:
        split: "train", "val" or "test", see `select`; or "all" for every pair.
        root: the folder that the patterns, or a manifest's relative paths, start from.
        image: pattern of the images below `root`, see `match_patterns`.
        depth: pattern of the depth maps.
        mask: pattern of the masks, which have their depth map's size; 0 means a hole.
        min_confidence: the masks hold confidence, and what is below this value is a hole; None if they do not.
        manifest: a table of pairs, used instead of the patterns, see `read_manifest`.
        depth_key: the array in files that hold several, see `read_map`.
        packing: how depth is packed into the channels or bits of its files, see `unpack`.
        exif: whether images, depth maps and masks are turned by the orientation in their EXIF or TIFF header; "auto":
            decided once for all pairs, see `decide`.
        image_range: the values of images of more than 8 bits that become 0 and 255, see `read_image`; None: derived
            once from all pairs, see `derive_range`.
        unmatched: how files without a partner are handled, see `match_patterns`.
        split_list: see `select`.
        val_share: see `select`.
        encoding: what the stored numbers mean.
        intrinsics: fx, fy, cx, cy in pixels of the images as they are read; see `camera`. None: unknown, or as
            `calibration` says. A row of the manifest may have its own.
        intrinsics_size: (h, w) of the images that the intrinsics are for; None for images of any size, unscaled.
        calibration: the data set in whose layout calibration files come with the images, see `read_calibration`.

    An image's id is its path below `root`. `total` counts the pairs of all splits. `settled` holds `exif` and
    `image_range` as decided and derived.

    Raises:
        SettingError: an argument is out of range.
        OSError: a folder, manifest or file does not exist or cannot be read.
        ValueError: see `match_patterns`, `read_manifest`, `select` and `decide`; for a sample, see the readers and
            `DepthEncoding`, or its sizes are inconsistent.
    """

    def __init__(
        self,
        split: Split,
        root: str | Path | None = None,
        image: str | None = None,
        depth: str | None = None,
        mask: str | None = None,
        manifest: str | Path | None = None,
        depth_key: str | None = None,
        unmatched: Literal["error", "skip"] = "error",
        split_list: str | Sequence[str] | None = None,
        val_share: float = 0.1,
        encoding: DepthEncoding | None = None,
        min_confidence: float | None = None,
        packing: Packing | None = None,
        exif: Exif = "auto",
        image_range: Sequence[float] | None = None,
        intrinsics: Sequence[float] | None = None,
        intrinsics_size: Sequence[int] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        one_of("split", split, get_args(Split))
        one_of("unmatched", unmatched, ("error", "skip"))
        number(
            "val_share",
            val_share,
            above=0,
            below=1,
            otherwise=f" {command_line('evaluate')} split=all scores every image.",
        )
        named = {"root": root, "image": image, "depth": depth, "mask": mask, "manifest": manifest}
        for name, value in {**named, "depth_key": depth_key}.items():
            optional(name, value, partial(text, what="a name" if name == "depth_key" else "a path or a pattern"))
        what = "a file below root, or a list of scenes, folders or images"
        if isinstance(split_list, str | None):
            optional("split_list", split_list, partial(text, what=what))
        else:
            several("split_list", split_list, None, what, partial(text, what="a name"))
        self.min_confidence = optional("min_confidence", min_confidence, number)
        self.packing: Packing | None = optional("packing", packing, partial(one_of, choices=get_args(Packing)))
        self.exif, self.image_range = check_exif("exif", exif), check_range("image_range", image_range)
        self.depth_key = depth_key
        self.intrinsics = optional("intrinsics", intrinsics, check_intrinsics)
        what = "[h,w] of the images that data.intrinsics is for"
        check = partial(several, count=2, what=what, check=whole_number)
        self.intrinsics_size: tuple[int, int] | None = optional("intrinsics_size", intrinsics_size, check)
        if intrinsics is None and intrinsics_size is not None:
            raise SettingError("intrinsics_size", "is the size that intrinsics are for: set data.intrinsics=… as well.")
        self.calibration: Calibration | None = optional(
            "calibration", calibration, partial(one_of, choices=get_args(Calibration))
        )
        folder = None if root is None else Path(root).expanduser()
        if manifest is not None:
            manifest = Path(manifest).expanduser()
            folder = folder or manifest.parent
            pairs = read_manifest(manifest, folder)
        elif folder is None or image is None or depth is None:
            raise ValueError(
                "Which images? Give data.root=… with data.image='rgb/*.jpg' and data.depth='depth/*.png', "
                "or data.manifest=my.csv, a table with the columns image and depth."
            )
        else:
            pairs = self.match(folder, image, depth, mask, unmatched)
        self.root = folder
        self.total = len(pairs)
        self.pairs = PairTable(select(pairs, split, split_list, val_share, folder))
        self.encoding = encoding or DepthEncoding()
        for pair in pairs:
            if pair.numbers or pair.kind:
                _of_row(self.encoding, pair)
                _check_camera(pair)
        if min_confidence is not None and not any(pair.mask for pair in pairs):
            raise SettingError("min_confidence", "is about masks, which there are none of: set data.mask=… as well.")
        self._settle(pairs)

    def _settle(self, pairs: Sequence[Pair]) -> None:
        """Decide and derive what was not declared, from the pairs of all splits, so that all are read alike."""
        if self.exif == "auto":
            self.exif, reason = decide(pairs, self._read)
            if reason:
                what = "applied" if self.exif == "apply" else "ignored"
                log.info(f"data.exif=auto: the EXIF orientation of images and depth maps is {what}: {reason}.")
        if self.image_range is None:
            images = (Path(pair.image) for pair in evenly_spread(pairs, LOOKED_AT))
            self.image_range = derive_range(images)
            if self.image_range is not None:
                low, high = self.image_range
                log.info(f"data.image_range=[{low:g},{high:g}], from the values of up to {LOOKED_AT} images.")

        if self.packing is None and self.encoding.kind != "disparity":
            self._warn_of_rotated(evenly_spread(pairs, 4))

    def _warn_of_rotated(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            path, _ = split_key(pair.depth)
            with suppress(OSError, ValueError):  # reported when it is needed
                if path.suffix.lower() in RASTERS and looks_rotated(read_map(path)):
                    log.warning(
                        f"{path}: its values are multiples of 8, as in SUN RGB-D, whose bits are rotated by three. If "
                        "these are, too, type data.packing=sunrgbd data.depth_scale=1000: otherwise depth beyond 8.19 "
                        "m is wrong."
                    )
                    return

    @property
    def settled(self) -> dict[str, Any]:
        """The arguments that decide how an image is read, for a prediction that reads images in the same way."""
        return {"exif": self.exif, "image_range": self.image_range and list(self.image_range)}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> DepthSample:
        """Sample `index`: image (h, w, 3) uint8 RGB, target of its own size."""
        sample, pair = self.read(index), self.pairs[index]
        path, _ = split_key(pair.depth)
        with naming(path, "a depth map"):
            _of_row(self.encoding, pair).check(sample.target, sample.mask)
        (h, w), (depth_h, depth_w) = sample.image.shape[:2], sample.target.shape
        if not same_aspect((h, w), (depth_h, depth_w)):
            turned = ""
            if max(turns(pair)) > 1:
                what = "applied" if self.exif == "apply" else "ignored"
                turned = f" Their EXIF orientation is {what} (data.exif={self.exif})."
            raise ValueError(
                f"{path}: expected the aspect of its image, found depth {depth_h}×{depth_w} for {h}×{w} of "
                f"{pair.image} (h×w). One of them is cropped, rotated or another camera's: register them first.{turned}"
            )
        return sample

    def read(self, index: int) -> DepthSample:
        """Sample `index`, even with implausible values or a wrong aspect: for inspection."""
        return self._read(self.pairs[index], _UPRIGHT[self.exif])

    def _read(self, pair: Pair, upright: bool | None) -> DepthSample:
        encoding = _of_row(self.encoding, pair)
        image = read_image(Path(pair.image), upright, self.image_range)
        path, _ = split_key(pair.depth)
        stored = self.stored(pair, image.shape[:2], upright)
        with naming(path, "a depth map"):
            target, mask = encoding.decode(stored)
        if pair.mask:
            mask_path, mask_key = split_key(pair.mask)
            declared = read_map(mask_path, mask_key, self.root, upright=upright)
            if declared.shape != mask.shape:
                raise ValueError(
                    f"{path}: expected a mask of the depth map's size {mask.shape}, found {declared.shape} in "
                    f"{mask_path}."
                )
            mask &= declared != 0 if self.min_confidence is None else declared >= self.min_confidence
            target[~mask] = 0
        intrinsics = self._intrinsics(pair, image.shape[:2])
        return DepthSample(image, target, mask, encoding.depth_kind, pair.id, pair.scene, intrinsics=intrinsics)

    def _intrinsics(self, pair: Pair, size: tuple[int, int]) -> np.ndarray:
        """The camera of an image of `size` (h, w): that of its row, or the data set's, or of its calibration file."""
        if "fov_deg" in pair.numbers:
            return camera.from_fov(pair.numbers["fov_deg"], size)
        try:
            if "fx" in pair.numbers:
                return camera.fitted([pair.numbers[key] for key in OF_CAMERA[:4]], None, size, "fov_deg in its row")
            if self.intrinsics is not None:
                return camera.fitted(self.intrinsics, self.intrinsics_size, size, "data.intrinsics_size=[h,w]")
        except ValueError as error:
            raise ValueError(f"{pair.image}: {error}") from error
        return intrinsics_of(self.calibration, Path(pair.image), size) if self.calibration else camera.UNKNOWN

    def match(
        self, root: Path, image: str, depth: str, mask: str | None, unmatched: Literal["error", "skip"]
    ) -> list[Pair]:
        """The pairs that the patterns find; a data set with a layout of its own overrides this."""
        return match_patterns(root, image, depth, mask, unmatched)

    def stored(self, pair: Pair, size: tuple[int, int], upright: bool | None) -> np.ndarray:
        """The depth map of a pair as stored, for an image of `size` (h, w); a format of one's own overrides this.

        `upright` is that of `read_map`.
        """
        path, key = split_key(pair.depth)
        return read_map(path, key or self.depth_key, self.root, self.packing, upright)

    def path(self, index: int) -> Path:
        """Path of the image of sample `index`."""
        return Path(self.pairs[index].image)


def _of_row(encoding: DepthEncoding, pair: Pair) -> DepthEncoding:
    own: dict[str, Any] = {key: value for key, value in pair.numbers.items() if key in OF_ENCODING}
    if pair.kind:
        own["kind"] = pair.kind
    if not own:
        return encoding
    try:
        return replace(encoding, **own)
    except ValueError as error:
        raise ValueError(f"{pair.id}, in its row of the manifest: {error}") from error


def _check_camera(pair: Pair) -> None:
    """Refuse a row whose camera is incomplete or impossible."""
    given = {key: pair.numbers[key] for key in OF_CAMERA if key in pair.numbers}
    if not given:
        return
    try:
        if given.keys() not in ({*OF_CAMERA[:4]}, {"fov_deg"}):
            raise ValueError(f"expected a camera as fx, fy, cx and cy, or as fov_deg, found {' and '.join(given)}.")
        if "fov_deg" in given:
            number("fov_deg", given["fov_deg"], above=0, below=180)
        else:
            check_intrinsics("fx, fy, cx, cy", list(given.values()))
    except ValueError as error:
        raise ValueError(f"{pair.id}, in its row of the manifest: {error}") from error
