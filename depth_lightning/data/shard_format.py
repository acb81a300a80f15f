"""Samples in shards: tar files in WebDataset's format. A sample is an image, a target and its metadata.

WebDataset: github.com/webdataset/webdataset. Any reader of that format reads these, and `tar` unpacks them. The
index.json beside the tar files lists how many samples each one has.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from depth_lightning import camera
from depth_lightning.data.files import read_npy, read_npz
from depth_lightning.data.images import decode_image
from depth_lightning.data.reading import BrokenError, naming, reading
from depth_lightning.sample import DepthKind, DepthSample

FORMAT = "depth_lightning shards 1"
INDEX = "index.json"
Split = Literal["train", "val"]


@dataclass(frozen=True)
class Shard:
    """One tar file, as index.json describes it."""

    file: str
    """Path below the data set's root."""
    samples: int
    bytes: int
    sha256: str


def encode(sample: DepthSample, compress: bool = True) -> dict[str, bytes]:
    """The files of a sample by extension, losslessly encoded.

    Args:
        sample: a sample with a uint8 image.
        compress: store the image as PNG and the target as .npz, a third of the size; False: both as .npy, which reads
            faster.
    """
    if sample.image.dtype != np.uint8:
        raise ValueError(f"{sample.id}: expected an image of uint8, found {sample.image.dtype}.")
    target = np.where(sample.mask, sample.target, np.float32(np.nan))
    known = None if np.isnan(sample.intrinsics).all() else sample.intrinsics.tolist()
    about = json.dumps({"id": sample.id, "scene": sample.scene, "kind": sample.kind.name, "intrinsics": known}).encode()
    if not compress:
        return {"image.npy": _npy(sample.image), "target.npy": _npy(target), "json": about}
    done, png = cv2.imencode(".png", sample.image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    packed = io.BytesIO()
    np.savez_compressed(packed, target=target)
    return {"image.png": png.tobytes(), "target.npz": packed.getvalue(), "json": about}


def _npy(array: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def decode(files: Mapping[str, bytes], where: str) -> DepthSample:
    """Inverse of `encode`; `check_sample` verifies that the arrays are consistent.

    Args:
        files: the sample's files by extension.
        where: the shard and the sample's number, for error messages.

    Raises:
        ValueError: a file is missing or damaged.
    """
    with naming(where, f"the files of a sample among {sorted(files)}", "Pack it again."):
        about = json.loads(files["json"])
        kind, id, scene = DepthKind[about["kind"]], about["id"], about["scene"]
        if not (isinstance(id, str) and isinstance(scene, str)):
            raise BrokenError(f"expected id and scene as text, found {id!r} and {scene!r}. Pack it again.")
        if "image.png" in files:
            image = decode_image(np.frombuffer(files["image.png"], np.uint8))
            target = read_npz(io.BytesIO(files["target.npz"]), "target")
        else:
            image, target = (
                read_npy(io.BytesIO(content), len(content)) for content in (files["image.npy"], files["target.npy"])
            )
        mask = ~np.isnan(target)
        target[~mask] = 0
        known = about.get("intrinsics")  # shards of earlier versions have none
        intrinsics = camera.UNKNOWN if known is None else np.array(known, np.float32)
        return DepthSample(image, target, mask, kind, id, scene, intrinsics=intrinsics)


def members(shard: Path) -> list[dict[str, tuple[int, int]]]:
    """The location of each sample's files in a tar file: extension → (offset, size) in bytes.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: it is not a tar file, or is truncated.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    end, size = 0, shard.stat().st_size
    with reading(shard, "a tar file"), tarfile.open(shard, "r:") as archive:
        for member in archive:
            if not end <= member.offset_data <= member.offset_data + member.size <= size:
                raise BrokenError(
                    "expected a tar file, found one whose members overlap or go beyond its end. Copy it again."
                )
            end = member.offset_data + member.size
            if member.isfile():
                key, _, extension = member.name.partition(".")
                samples.setdefault(key, {})[extension] = (member.offset_data, member.size)
    return list(samples.values())


def write_index(splits: Mapping[Split, list[Shard]], made_from: Mapping[str, Any]) -> str:
    """Return the content of index.json."""
    listed = {split: [asdict(shard) for shard in shards] for split, shards in splits.items()}
    return json.dumps({"format": FORMAT, "splits": listed, "made_from": made_from}, indent=1)


def read_index(content: str, where: str) -> dict[str, list[Shard]]:
    """The shards of each split.

    Raises:
        ValueError: `content` was not made by `write_index`, or names files other than `<split>/<number>.tar`.
    """
    with naming(where, f"the index of {FORMAT!r}, as `pack` writes it", "Pack it again."):
        index = json.loads(content)
        if index["format"] != FORMAT:
            raise BrokenError(f"expected the index of {FORMAT!r}, found the format {index['format']!r}. Pack it again.")
        splits = {split: [_shard(split, shard) for shard in shards] for split, shards in index["splits"].items()}
        files = Counter(shard.file for shards in splits.values() for shard in shards)
        if twice := [file for file, count in files.items() if count > 1]:
            raise BrokenError(f"expected each shard once, found {', '.join(twice[:3])} several times. Pack it again.")
        return splits


def _shard(split: str, fields: Mapping[str, Any]) -> Shard:
    shard = Shard(**fields)
    sizes = type(shard.bytes) is int and 0 < shard.bytes < 2**48 and type(shard.samples) is int
    # A tar file has a header of 512 bytes for each file, and at least two files for each sample.
    sizes = sizes and 0 < shard.samples <= shard.bytes // 1024
    name = split.isidentifier() and re.fullmatch(rf"{split}/[0-9]+\.tar", str(shard.file))
    if not (name and sizes and re.fullmatch("[0-9a-f]{64}", str(shard.sha256))):
        raise BrokenError(
            f"expected {split}/<number>.tar with the numbers of its samples and bytes and its SHA-256, found "
            f"{asdict(shard)!s:.300}. Pack it again."
        )
    return shard


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
