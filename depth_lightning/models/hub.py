"""The released files of Depth Anything V2: where they are, what they hold, and under which licence."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from depth_lightning.models.depth_anything import Output

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """One released file. Only its name tells what it holds: the keys and shapes are the same for all of an encoder."""

    repo: str
    file: str
    encoder: str
    output: Output
    max_depth: float | None
    """In metres; None for a relative network."""
    licence: str
    sha256: str | None
    """None where it is not known to us."""


def _releases() -> list[Release]:
    owner = "depth-anything/Depth-Anything-V2"
    known_sha256 = {"depth_anything_v2_vits.pth": "715fade13be8f229f8a70cc02066f656f2423a59effd0579197bbf57860e1378"}
    releases = []
    for encoder, name, licence in (
        ("vits", "Small", "Apache-2.0"),
        ("vitb", "Base", "CC-BY-NC-4.0"),
        ("vitl", "Large", "CC-BY-NC-4.0"),
    ):
        file = f"depth_anything_v2_{encoder}.pth"
        sha256 = known_sha256.get(file)
        releases.append(Release(f"{owner}-{name}", file, encoder, "relative", None, licence, sha256))
        for data, max_depth in (("Hypersim", 20.0), ("VKITTI", 80.0)):
            repo = f"{owner}-Metric-{data}-{name}"
            file = f"depth_anything_v2_metric_{data.lower()}_{encoder}.pth"
            releases.append(Release(repo, file, encoder, "metric", max_depth, licence, None))
    return releases


RELEASES = _releases()


def find_release(source: str | Path) -> Release | None:
    """The release of that hub id, or whose file has that path's name; None where neither is known."""
    for release in RELEASES:
        if str(source) == release.repo or Path(source).name == release.file:
            return release
    return None


def resolve_weights(source: str | Path) -> Path:
    """The path of a weights file: `source` itself, or the file of a hub id, downloaded once into the hub's cache.

    Raises:
        FileNotFoundError: `source` is neither a file nor a hub id in `RELEASES`.
        ConnectionError: the download failed; the message says which file to fetch by hand and where to put it.
        ValueError: the download's SHA-256 is not the published one.
    """
    path = Path(source).expanduser()
    release = find_release(source)
    if not path.is_file():
        if release is None or str(source) != release.repo:
            known = "\n  ".join(release.repo for release in RELEASES)
            raise FileNotFoundError(
                f"{source} is neither a file nor a hub id known here. "
                f"Give the path of a .pth file (model.weights=/path/to/it), or one of:\n  {known}"
            )
        path = _download(release)
    if release is not None:
        commercial = release.licence == "Apache-2.0"
        level, limit = (logging.INFO, "") if commercial else (logging.WARNING, ": no commercial use")
        _log.log(level, "%s is licensed under %s%s.", path.name, release.licence, limit)
    return path


def _download(release: Release) -> Path:
    cached = try_to_load_from_cache(release.repo, release.file)
    try:
        # Asking the hub about a file that is there takes half a minute where there is no network.
        path = Path(cached if isinstance(cached, str) else hf_hub_download(release.repo, release.file))
    except OSError as error:  # the hub's own errors and those of the connection are all of this kind
        raise ConnectionError(
            f"Could not download {release.file} of {release.repo}: {error}\n"
            f"On a machine with a network, download https://huggingface.co/{release.repo}/blob/main/{release.file} "
            f"and type model.weights=/path/to/{release.file} here; or bring its hub cache, which lies in "
            f"{constants.HF_HUB_CACHE} (HF_HOME moves it)."
        ) from error
    if release.sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != release.sha256:
            raise ValueError(
                f"{path} is not the published {release.file}: its SHA-256 is {found}, expected {release.sha256}. "
                "Delete it and try again."
            )
    return path
