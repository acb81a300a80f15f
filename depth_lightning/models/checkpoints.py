"""Weights in and out, in the layout of the published files: `pretrained.*` is the encoder, `depth_head.*` the head."""

import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from depth_lightning.models.depth_anything import DepthAnythingV2
from depth_lightning.models.hub import Release, find_release
from depth_lightning.models.sizes import SIZES

_log = logging.getLogger(__name__)

Init = Literal["all", "encoder"]
_OFFICIAL_PREFIX = {"encoder": "pretrained", "head": "depth_head"}


class LoadReport(NamedTuple):
    """What `load_weights` did. Keys are those of the published layout."""

    path: Path
    layout: str
    """How the file names its keys."""
    init: Init
    """With "encoder", the head keeps its random start."""
    loaded: int
    """Number of keys copied into the network."""
    dropped: tuple[str, ...]
    """Keys of the file that went nowhere."""
    missing: tuple[str, ...]
    """Keys that were asked for and not found. None of them is used by a forward pass: those would be an error."""

    def __str__(self) -> str:
        text = f"Loaded {self.loaded} tensors ({self.init}) from {self.path} in the {self.layout} layout."
        head = [key for key in self.dropped if key.startswith("depth_head.")]
        others = [key for key in self.dropped if not key.startswith("depth_head.")]
        if self.init == "encoder":
            text += " The head keeps its random start"
            text += f": {len(head)} tensors of a head were left out." if head else "."
            dropped = others
        else:
            dropped = [*others, *head]
        if dropped:
            text += f" Dropped, unknown to the network: {', '.join(dropped)}."
        if self.missing:
            text += f" Missing in the file, and not used in prediction: {', '.join(self.missing)}."
        return text


def load_weights(network: DepthAnythingV2, path: str | Path, init: Init = "all") -> LoadReport:
    """Copy weights from a file into the network, in place; nothing is changed if an error is raised.

    Args:
        network: on any device.
        path: a `.pth` file in the published layout, complete or the encoder alone; keys may start with `module.`, and
            the state dict may lie under "model". It is read without unpickling objects.
        init: "all", or "encoder" to leave the head as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read safely, is of another encoder or of another kind of output, or lacks
            something.
    """
    if init not in ("all", "encoder"):
        raise ValueError(f"init is all or encoder, found {init!r}.")
    path = Path(path)
    layout, state = _to_official(_read(path), path)
    _check_encoder(state, network, path)
    if init == "all":
        _check_output(find_release(path), network, path)

    own = official_state_dict(network)
    wanted = own if init == "all" else {key: own[key] for key in own if key.startswith("pretrained.")}
    missing = tuple(key for key in wanted if key not in state)
    # What no forward pass uses may be missing from an encoder: DINOv2 in timm has no mask token.
    unused = {official_key(network, name) for name, _ in network.named_buffers()} if init == "encoder" else set()
    if lacking := [key for key in missing if key not in unused]:
        only_head = all(key.startswith("depth_head.") for key in lacking)
        hint = " Type model.init=encoder to load the encoder alone." if only_head else ""
        raise ValueError(f"{path} lacks {len(lacking)} of {len(wanted)} tensors: {', '.join(lacking)}.{hint}")
    shared = {key: tensor for key, tensor in wanted.items() if key in state}
    if differing := [key for key, tensor in shared.items() if tensor.shape != state[key].shape]:
        shapes = ", ".join(f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}" for key in differing)
        raise ValueError(f"{path} does not fit the network: {shapes}.")
    with torch.no_grad():
        for key, tensor in shared.items():
            tensor.copy_(state[key])
    dropped = tuple(key for key in state if key not in wanted)
    return LoadReport(path, layout, init, len(shared), dropped, missing)


def save_weights(network: DepthAnythingV2, path: str | Path, layout: Literal["official"] = "official") -> None:
    """Write the network's weights, complete and nothing else, so that the reference's strict load takes them.

    Raises:
        FileExistsError: there is a file at `path` already.
    """
    if layout != "official":
        raise ValueError(f"layout is official, found {layout!r}.")
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it, or give another path.")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save({key: t.cpu().contiguous() for key, t in official_state_dict(network).items()}, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def official_state_dict(network: DepthAnythingV2) -> dict[str, Tensor]:
    """The network's tensors themselves, not copies, under the published keys."""
    return {official_key(network, key): tensor for key, tensor in network.state_dict().items()}


def official_key(network: DepthAnythingV2, key: str) -> str:
    """The published name of an entry of the network's state dict."""
    part, _, name = key.partition(".")
    if SIZES[network.encoder_name].swiglu:
        name = name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")
    return f"{_OFFICIAL_PREFIX[part]}.{name}"


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.pth` file; nothing in it is executed."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {found}; expected a .pth file.")
    zipped = zipfile.is_zipfile(path)
    with path.open("rb") as file:
        start = file.read(16)
    if not zipped and not start.startswith(b"\x80"):  # torch wrote pickles before it wrote zip files
        torn = "it is torn: download or copy it again" if start.startswith(b"PK") else f"it starts with {start!r}"
        raise ValueError(f"{path} is not a checkpoint of torch; {torn}.")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} was refused: it holds more than tensors and plain values, or is damaged, and to read it would be "
            "to run code that it brings. Ask its author for a plain state dict."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path} cannot be read; it is damaged, or not a checkpoint of torch: {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds {type(content).__name__}, expected a state dict: names with tensors.")
    if strangers := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} is not a state dict: {', '.join(strangers[:8])} hold no tensors.")
    return {str(key): value for key, value in content.items()}


def _to_official(state: dict[str, Tensor], path: Path) -> tuple[str, dict[str, Tensor]]:
    """The name of the file's layout, and its tensors under the published keys."""
    if all(key.startswith("module.") for key in state):  # left by DistributedDataParallel
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    if any(key.startswith("pretrained.") for key in state):
        return "official", _from_official(state)
    raise ValueError(
        f"{path} has no weights of a Depth Anything encoder: none of its keys starts with pretrained. "
        f"It has {', '.join(list(state)[:4])} …"
    )


def _from_official(state: dict[str, Tensor]) -> dict[str, Tensor]:
    mask_token = state.get("pretrained.mask_token")
    if mask_token is not None and mask_token.ndim == 3:  # some files have a dimension more
        state = {**state, "pretrained.mask_token": mask_token.squeeze(1)}
    return state


def _check_encoder(state: dict[str, Tensor], network: DepthAnythingV2, path: Path) -> None:
    """Width and depth name an encoder; shapes alone would not tell where files of two encoders overlap."""
    class_token = state.get("pretrained.cls_token")
    if class_token is None:
        raise ValueError(f"{path} lacks pretrained.cls_token, so it is not a whole Depth Anything encoder.")
    blocks = {key.split(".")[2] for key in state if key.startswith("pretrained.blocks.")}
    found = (class_token.shape[-1], len(blocks))
    size = SIZES[network.encoder_name]
    if found != (size.width, size.depth):
        name = next((name for name, s in SIZES.items() if (s.width, s.depth) == found), None)
        advice = f"type model={name}, or give" if name else "give"
        raise ValueError(
            f"{path} holds {name or 'an unknown encoder'} (width {found[0]}, {found[1]} blocks), and the network is "
            f"{network.encoder_name} (width {size.width}, {size.depth} blocks): {advice} weights of "
            f"{network.encoder_name}."
        )


def _check_output(release: Release | None, network: DepthAnythingV2, path: Path) -> None:
    """Relative and metric files have the same keys and shapes, so only a released file's name tells them apart."""
    if release is None:
        return
    if release.output != network.output:
        raise ValueError(
            f"{path} is the released {release.output} network of {release.repo}, and this one gives {network.output} "
            f"output: type model.output={release.output}, or model.init=encoder to start a new head."
        )
    if release.max_depth is not None and release.max_depth != network.max_depth:
        _log.warning(
            "%s was trained with max_depth %g, and this network has %g: until it is trained further, its depths come "
            "out %.3g times as large. For the released ones type model.max_depth=%g.",
            path,
            release.max_depth,
            network.max_depth,
            network.max_depth / release.max_depth,
            release.max_depth,
        )
