"""Reading tensors from torch and safetensors files. No code in a file is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from depth_lightning.models.adapters import merge_state, of_run
from depth_lightning.models.provenance import FOLDER_FILES
from depth_lightning.models.torch_files import read_torch, refuse_parts


class WeightFile(NamedTuple):
    """The content of a weights file."""

    state: dict[str, Tensor]
    run_config: Mapping[str, Any] | None
    """The configuration that a checkpoint of this project carries."""


def read_weights(path: Path) -> WeightFile:
    """The tensors of a torch or safetensors file, detected from its contents, or of a transformers folder.

    In a torch file they may be stored under "model" or "state_dict". A run's adapters are merged.

    Raises:
        FileNotFoundError: the file does not exist, or the folder holds no weights.
        ValueError: the file is damaged, is not a state dict, or holds more than tensors and plain values.
    """
    refuse_parts(path)
    if path.is_dir():
        inside = next((path / name for name in FOLDER_FILES if (path / name).is_file()), None)
        if inside is None:
            raise FileNotFoundError(f"{path} is a folder without {' or '.join(FOLDER_FILES)}; expected a weights file.")
        path = inside
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected a weights file or a transformers folder. resolve_weights(…) fetches the "
            "weights of a hub id, such as depth-anything/Depth-Anything-V2-Small."
        )
    with path.open("rb") as file:
        start = file.read(16)
    if start[8:9] == b"{":  # after the length of its header
        try:
            return WeightFile(load_file(path), None)
        except SafetensorError as error:
            raise ValueError(f"{path} cannot be read: {error}; download or copy it again.") from error
    return _read_torch(path)


def _read_torch(path: Path) -> WeightFile:
    content = read_torch(path)
    config = content.get("config") if isinstance(content, Mapping) else None
    for name in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} holds {type(content).__name__}, expected a state dict: names with tensors.")
    if strangers := [str(key) for key, value in content.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} is not a state dict: {', '.join(strangers[:8])} hold no tensors.")
    state = {str(key): value for key, value in content.items()}
    if all(key.startswith("module.") for key in state):  # left by DistributedDataParallel
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    config = config if isinstance(config, Mapping) else None
    lora = of_run(config)
    return WeightFile(state if lora is None else merge_state(state, lora.scale), config)
