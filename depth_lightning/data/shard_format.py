"""Samples in shards: tar files as WebDataset has them, each sample an image, a target and what is known of it.

WebDataset: github.com/webdataset/webdataset. Any reader of that format reads these, and `tar` unpacks them. Beside the
tar files lies index.json, which says how many samples each has.
"""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

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
    """The files of a sample by extension; nothing is lost.

    Args:
        sample: its image uint8.
        compress: image as PNG and target as .npz, a third of the size; False: both as .npy, which is read faster.
    """
    if sample.image.dtype != np.uint8:
        raise ValueError(f"{sample.id}: expected an image of uint8, found {sample.image.dtype}.")
    target = np.where(sample.mask, sample.target, np.float32(np.nan))
    about = json.dumps({"id": sample.id, "scene": sample.scene, "kind": sample.kind.name}).encode()
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
    """The sample that `encode` made the files of.

    Args:
        files: by extension.
        where: the shard and the sample's key, for messages.

    Raises:
        ValueError: a file is missing or damaged.
    """
    try:
        about = json.loads(files["json"])
        if "image.png" in files:
            image = cv2.cvtColor(_decoded_png(files["image.png"]), cv2.COLOR_BGR2RGB)
            target = np.load(io.BytesIO(files["target.npz"]), allow_pickle=False)["target"]
        else:
            image, target = (
                np.load(io.BytesIO(files[f"{name}.npy"]), allow_pickle=False) for name in ("image", "target")
            )
        mask = ~np.isnan(target)
        target[~mask] = 0
        return DepthSample(image, target, mask, DepthKind[about["kind"]], about["id"], about["scene"])
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, cv2.error) as error:
        raise ValueError(
            f"{where}: expected the files of a sample as commands.pack writes them, found {sorted(files)} ({error})."
        ) from error


def _decoded_png(content: bytes) -> np.ndarray:
    image: np.ndarray | None = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("the image cannot be decoded")
    return image


def members(shard: Path) -> list[dict[str, tuple[int, int]]]:
    """Where the files of each sample of a tar file are: by extension, (offset, size) in bytes.

    Raises:
        ValueError: it is no tar file, or cut short.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile():
                    key, _, extension = member.name.partition(".")
                    samples.setdefault(key, {})[extension] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"{shard}: expected a tar file, found another or a damaged one ({error}).") from error
    return list(samples.values())


def write_index(splits: Mapping[Split, list[Shard]], made_from: Mapping[str, Any]) -> str:
    """The content of index.json."""
    listed = {split: [asdict(shard) for shard in shards] for split, shards in splits.items()}
    return json.dumps({"format": FORMAT, "splits": listed, "made_from": made_from}, indent=1)


def read_index(content: str, where: str) -> dict[str, list[Shard]]:
    """The shards of each split.

    Raises:
        ValueError: `content` is not what `write_index` makes; the message begins with `where`.
    """
    try:
        index = json.loads(content)
        if index["format"] == FORMAT:
            return {split: [Shard(**shard) for shard in shards] for split, shards in index["splits"].items()}
        found = f"the format {index['format']!r}"
    except (ValueError, KeyError, TypeError) as error:
        found = f"another file ({error!r})"
    raise ValueError(f"{where}: expected the index of {FORMAT!r}, as commands.pack writes it, found {found}.")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
