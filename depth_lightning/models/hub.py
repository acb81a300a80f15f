"""The released files of Depth Anything V2, and our own: location, content and licence."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import timm
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from depth_lightning.models.depth_anything import Output
from depth_lightning.models.timm_encoder import timm_names

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Release:
    """One released file. Only its name identifies it: keys and shapes are the same for all files of an encoder."""

    repo: str
    file: str
    encoder: str
    output: Output | None
    """None for an encoder alone, of timm."""
    max_depth: float | None
    """In metres; None for a relative network."""
    licence: str
    sha256: str | None
    """None if we do not know it."""
    size: int | None = None
    """Pixels of the shorter side that it was trained at, where it is not 518."""

    @property
    def for_transformers(self) -> bool:
        """Whether it is a transformers folder: `file` with a config.json beside it."""
        return self.repo.endswith("-hf")


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
        file = "model.safetensors"
        releases.append(Release(f"{owner}-{name}-hf", file, encoder, "relative", None, licence, None))
        for scene, max_depth in (("Indoor", 20.0), ("Outdoor", 80.0)):
            repo = f"{owner}-Metric-{scene}-{name}-hf"
            releases.append(Release(repo, file, encoder, "metric", max_depth, licence, None))
    return releases


RELEASES = _releases()

OWN = Release(
    repo="rooms_tiny",
    file="rooms_tiny.safetensors",
    encoder="tiny",
    output="relative",
    max_depth=None,
    licence="Apache-2.0",
    sha256="0ac75fb853ad85cc6b9016688812e41cb668e0ac3199ba6e0c36c8487a99f67b",
    size=84,
)
"""Comes with the package; pretrained/README.md is its model card."""
PRETRAINED = Path(__file__).with_name("pretrained")


_V1_FILES = (
    "depth_anything_vits14.pth",
    "depth_anything_vitb14.pth",
    "depth_anything_vitl14.pth",
    "depth_anything_metric_depth_indoor.pt",
    "depth_anything_metric_depth_outdoor.pt",
)
_V1_REPOS = (
    "LiheYoung/Depth-Anything",
    "LiheYoung/depth_anything_vits14",
    "LiheYoung/depth_anything_vitb14",
    "LiheYoung/depth_anything_vitl14",
    "LiheYoung/depth-anything-small-hf",
    "LiheYoung/depth-anything-base-hf",
    "LiheYoung/depth-anything-large-hf",
)


def find_release(source: str | Path) -> Release | None:
    """The release with this hub id, or with the file or folder name of this path; None if there is none.

    A hub id `timm/<name>` may lack the tag; it then means the weights that timm prefers.
    """
    for release in (*RELEASES, OWN):
        if _is_repo(source, release.repo):
            return release
        if not release.for_transformers and Path(source).name == release.file:
            return release
    owner, _, name = Path(source).as_posix().partition("/")
    return _find_in_timm(name) if owner == "timm" else None


def _find_in_timm(name: str) -> Release | None:
    if name.partition(".")[0] not in timm_names():
        return None
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        return None
    if config is None or not config.hf_hub_id:
        return None
    file = config.hf_hub_filename or "model.safetensors"
    return Release(config.hf_hub_id, file, name, None, None, config.license or "unknown", None)


def is_noncommercial(licence: str) -> bool:
    """Whether a licence's name says that it excludes commercial use."""
    return not {"nc", "noncommercial"}.isdisjoint(licence.lower().split("-"))


def find_v1(source: str | Path) -> str | None:
    """The published name of Depth Anything V1 in a hub id or a path; None if there is none."""
    name = Path(source).name
    return name if name in _V1_FILES else next((repo for repo in _V1_REPOS if _is_repo(source, repo)), None)


def _is_repo(source: str | Path, repo: str) -> bool:
    """Whether `source` is this hub id, a copy of it, or lies in its folder of the hub's cache."""
    in_cache = "models--" + repo.replace("/", "--")
    parts = Path(source).parts
    return (
        Path(source).as_posix() == repo
        or in_cache in parts
        or (repo.endswith("-hf") and repo.split("/")[1] in parts[-2:])
    )


def resolve_weights(source: str | Path) -> Path:
    """The path of weights: `source` itself, or a hub id's file or folder, downloaded once into the hub's cache.

    "rooms_tiny" is the package's own file, whatever the current folder holds.

    Raises:
        FileNotFoundError: `source` is neither a file, nor a transformers folder, nor a known name.
        ConnectionError: the download failed; the message names the file to fetch by hand and where to put it.
        ValueError: the file's SHA-256 is not the published one, or the hub id is one of Depth Anything V1.
    """
    path = Path(source).expanduser()
    release = find_release(source)
    if str(source) == OWN.repo:
        path = PRETRAINED / OWN.file
        _check_sha256(path, OWN, "Install the package again.")
    elif not path.is_file() and not (path / "config.json").is_file():
        if str(source) in _V1_REPOS:
            known = ", ".join(r.repo for r in RELEASES if r.output == "relative")
            raise ValueError(f"{source} is Depth Anything V1, which needs another network. Type one of V2: {known}.")
        if release is None or (str(source) != release.repo and release.output is not None):
            known = "\n  ".join(release.repo for release in (*RELEASES, OWN))
            raise FileNotFoundError(
                f"{source} is neither a file nor a hub id known here. "
                "Give the path of a .pth or .safetensors file or of a transformers folder (model.weights=/path/to/it), "
                f"timm/<name> for an encoder of timm, or one of:\n  {known}"
            )
        path = _download(release)
    if release is not None:
        if is_noncommercial(release.licence):
            level, limit = logging.WARNING, ": no commercial use"
        elif release.licence.lower() in ("apache-2.0", "mit"):
            level, limit = logging.INFO, ""
        else:
            level, limit = logging.WARNING, ": read its terms"
        name = release.repo if release.for_transformers or release.output is None else release.file
        _log.log(level, "%s is licensed under %s%s.", name, release.licence, limit)
    return path


def _download(release: Release) -> Path:
    """The file of a release, or the folder of one for transformers."""
    path = _download_file(release, release.file)
    if release.for_transformers:
        return _download_file(release, "config.json").parent
    _check_sha256(path, release, "Delete it and try again.")
    return path


def _check_sha256(path: Path, release: Release, advice: str) -> None:
    if release.sha256 is None:
        return
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != release.sha256:
        raise ValueError(
            f"{path} is not the published {release.file}: its SHA-256 is {sha256}, expected {release.sha256}. {advice}"
        )


def _download_file(release: Release, file: str) -> Path:
    cached = try_to_load_from_cache(release.repo, file)
    try:
        # Asking the hub about a cached file takes half a minute without a network.
        return Path(cached if isinstance(cached, str) else hf_hub_download(release.repo, file))
    except OSError as error:  # the hub's own errors and connection errors are all OSErrors
        if release.for_transformers:
            address, target = f"{release.repo}/tree/main (config.json and {release.file})", release.repo.split("/")[1]
        else:
            address, target = f"{release.repo}/resolve/main/{file}", file
        raise ConnectionError(
            f"Could not download {file} of {release.repo}: {error}\n"
            f"On a machine with a network, download https://huggingface.co/{address} "
            f"and type model.weights=/path/to/{target} here; or copy its hub cache to "
            f"{constants.HF_HUB_CACHE} (HF_HOME moves it)."
        ) from error
