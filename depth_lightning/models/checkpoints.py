"""Loading weights in any known layout into a network, and saving a network in files that other tools read."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from depth_lightning.atomic import atomically, write_bytes, write_text
from depth_lightning.models.adapters import merged, without_adapters
from depth_lightning.models.depth_anything import DepthAnythingV2
from depth_lightning.models.layouts import ENCODER_LAYOUTS, Layout, State, count_blocks, to_official, to_transformers
from depth_lightning.models.provenance import Provenance, check_provenance, find_provenance, metadata_path
from depth_lightning.models.sizes import SIZES
from depth_lightning.models.timm_encoder import TimmEncoder, architecture
from depth_lightning.models.transformers_folder import image_processor_config, transformers_config
from depth_lightning.models.weight_files import read_weights
from depth_lightning.settings import boolean, one_of

Init = Literal["all", "encoder", "head"]
SaveLayout = Literal["official", "transformers", "safetensors"]
_LAST_LAYER = "depth_head.scratch.output_conv2.2."
_OFFICIAL_PREFIX = {"encoder": "pretrained", "head": "depth_head"}


class LoadReport(NamedTuple):
    """What `load_weights` did. Keys are those of the published layout."""

    path: Path
    layout: Layout
    """The file's key layout."""
    init: Init
    """What is loaded; the rest keeps its random initialisation."""
    loaded: int
    """Number of keys copied into the network."""
    dropped: tuple[str, ...]
    """Keys in the file that were not used."""
    missing: tuple[str, ...]
    """Keys that the file lacks. The forward pass uses none of them; a missing key that it uses is an error."""
    provenance: Provenance | None
    """What the file is declared to be; None if not declared, in which case it was assumed to match the network."""
    left_out: tuple[str, ...] = ()
    """Keys of the head's last layer, if the file's head ends otherwise than the network's."""

    def __str__(self) -> str:
        text = f"Loaded {self.loaded} tensors ({self.init}) from {self.path} in the {self.layout} layout."
        if self.provenance is not None:
            text += f" Provenance: {self.provenance}."
        head = [key for key in self.dropped if key.startswith("depth_head.")]
        encoder = [key for key in self.dropped if key.startswith("pretrained.")]
        dropped = [*(key for key in self.dropped if key not in {*head, *encoder}), *encoder, *head]
        if self.init != "all":
            part, unused = ("head", head) if self.init == "encoder" else ("encoder", encoder)
            article = "a" if part == "head" else "an"
            text += f" The {part} keeps its random start"
            text += f": {len(unused)} tensors of {article} {part} were left out." if unused else "."
            dropped = [key for key in dropped if key not in unused]
        if self.left_out:
            text += f" Left out, since the file's head ends otherwise than this one: {', '.join(self.left_out)}."
        if dropped:
            text += f" Dropped, unknown to the network: {', '.join(dropped)}."
        if self.missing:
            text += f" Missing in the file, and not used in prediction: {', '.join(self.missing)}."
        return text


def load_weights(network: DepthAnythingV2, path: str | Path, init: Init = "all", force: bool = False) -> LoadReport:
    """Copy weights from a file into the network, in place; the network is unchanged if an error is raised.

    Args:
        network: on any device.
        path: a torch or safetensors file in the published layout, complete or with the encoder alone; a transformers
            folder; a checkpoint of this project; for the encoder, DINOv2's own file or timm's. Keys may start with
            `module.`. Only tensors and plain values are unpickled.
        init: "all"; "encoder" to leave the head unchanged; "head" to leave the encoder unchanged, which then may be
            another than the file's.
        force: load weights with the other kind of output, or of Depth Anything V1, with a warning.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file cannot be read safely, belongs to another encoder, lacks tensors, or is declared to have
            another kind of output or to be V1, by metadata beside it, its configuration, or its published name.
    """
    one_of("init", init, get_args(Init))
    boolean("force", force)
    path = Path(path)
    content, run_config = read_weights(path)
    layout, state = _recognise(content, network, path)
    provenance = find_provenance(path, run_config)
    if init != "head":
        _check_encoder(state, network, path, None if provenance is None else provenance.encoder)
    check_provenance(provenance, network, path, init, force)

    own = official_state_dict(network)
    wanted = own if init == "all" else {key: own[key] for key in own if key.startswith(f"{_OFFICIAL_PREFIX[init]}.")}
    ends = "sigmoid" if provenance is None else provenance.head
    left_out = tuple(key for key in wanted if key.startswith(_LAST_LAYER)) if ends != network.head_name else ()
    wanted = {key: tensor for key, tensor in wanted.items() if key not in left_out}
    missing = tuple(key for key in wanted if key not in state)
    _check_missing(missing, wanted, network, path, init)
    shared = {key: tensor for key, tensor in wanted.items() if key in state}
    if differing := [key for key, tensor in shared.items() if tensor.shape != state[key].shape]:
        shapes = [f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}" for key in differing]
        others = f", and {len(shapes) - 4} more" if len(shapes) > 4 else ""
        raise ValueError(f"{path} does not fit the network: {', '.join(shapes[:4])}{others}.")
    with torch.no_grad():
        for key, tensor in shared.items():
            tensor.copy_(state[key])
    dropped = tuple(key for key in state if key not in wanted and key not in left_out)
    return LoadReport(path, layout, init, len(shared), dropped, missing, provenance, left_out)


def _recognise(content: State, network: DepthAnythingV2, path: Path) -> tuple[Layout, State]:
    recognised = to_official(content)
    if isinstance(network.encoder, TimmEncoder) and (recognised is None or recognised[0] in ENCODER_LAYOUTS):
        try:
            encoder = network.encoder.published(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return "timm", {f"pretrained.{key}": tensor for key, tensor in encoder.items()}
    if recognised is None:
        raise ValueError(
            f"{path} has no weights of a Depth Anything encoder: its keys are in none of the layouts "
            f"{', '.join(get_args(Layout))}. It has {', '.join(list(content)[:4])} …"
        )
    return recognised


def load_run_state(network: DepthAnythingV2, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy a run's weights into its network; their keys may start with `network.`, its name in the module.

    What the run's loss has learnt, under `objective.`, is left out.

    Raises:
        ValueError: they do not fit the network.
    """
    own = {key.removeprefix("network."): tensor for key, tensor in state.items() if not key.startswith("objective.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:20])
        raise ValueError(f"checkpoint={path} does not fit its network: {reason} …") from error


def save_weights(
    network: DepthAnythingV2,
    path: str | Path,
    layout: SaveLayout = "official",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the network's complete weights, adapters merged, and beside them a description as JSON.

    Args:
        network: on any device.
        path: a new file; for transformers a new folder, which is all that `from_pretrained` needs.
        layout: "official" is what the reference's strict load takes, "safetensors" has the same keys.
        metadata: plain values to add to the JSON, such as `size`, to which a transformers folder resizes images (518 by
            default), beside encoder, output, max_depth in metres and version. The JSON is
            metadata.json in the folder, or name.pth.json beside name.pth.

    Raises:
        FileExistsError: `path` or its metadata file exists already.
        ValueError: transformers cannot build this network (see `transformers_config`), or other programs expect another
            encoder or head.
    """
    one_of("layout", layout, get_args(SaveLayout))
    if network.encoder_name not in SIZES and layout != "safetensors":
        raise ValueError(
            f"layout={layout} is read by code that has the encoders of Depth Anything V2 alone, and this network has "
            f"{network.encoder_name}: use layout=safetensors, or a graph, layout=onnx or layout=pt2."
        )
    # The authors' relative class reads the file of an inverse_depth head: its ReLU gives 1 / depth.
    read_elsewhere = {"sigmoid": ("official", "transformers"), "log_depth": (), "inverse_depth": ("official",)}
    if layout != "safetensors" and layout not in read_elsewhere[network.head_name]:
        raise ValueError(
            f"layout={layout} is read by code that ends in a sigmoid, and this network has head={network.head_name}: "
            "use layout=safetensors, or a graph, layout=onnx or layout=pt2."
        )
    path, network = Path(path), merged(network)
    description = to_json(with_kind(network, metadata or {}))
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in official_state_dict(network).items()}
    if layout == "transformers":
        _save_folder(path, network, state, description, (metadata or {}).get("size", 518))
        return
    beside = metadata_path(path)
    for target in (path, beside):
        if target.exists():
            raise FileExistsError(f"{target} exists; remove it, or give another path.")
    write_bytes(path, _official_bytes(state) if layout == "official" else save(state))
    write_text(beside, description)


def _save_folder(path: Path, network: DepthAnythingV2, state: State, description: str, size: int) -> None:
    config = transformers_config(network)
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it, or give another path.")
    with atomically(path) as folder:
        folder.mkdir()
        write_bytes(folder / "model.safetensors", save(to_transformers(state), metadata={"format": "pt"}))
        write_text(folder / "config.json", to_json(config))
        write_text(folder / "preprocessor_config.json", to_json(image_processor_config(size)))
        write_text(folder / "metadata.json", description)


def _official_bytes(state: State) -> memoryview:
    """The file in memory, since torch does not report a full disk clearly."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getbuffer()


def with_kind(network: DepthAnythingV2, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata, extended by what is needed to build such a network and what `find_provenance` reads."""
    own = {
        "encoder": network.encoder_name,
        "output": network.output,
        "max_depth": network.max_depth if network.output == "metric" else None,
        "version": "V2",
    }
    head = {} if network.head_name == "sigmoid" else {"head": network.head_name}
    taps = {} if network.encoder_name in SIZES else {"taps": list(network.encoder.taps)}
    canonical = {} if network.focal_px is None else {"focal_px": network.focal_px}
    return {**metadata, **own, **head, **taps, **canonical}


def to_json(content: Mapping[str, Any]) -> str:
    """The text of a metadata file."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def official_state_dict(network: DepthAnythingV2) -> dict[str, Tensor]:
    """The network's tensors themselves, not copies, under the published keys; without those of adapters."""
    return {official_key(network, key): tensor for key, tensor in without_adapters(network.state_dict()).items()}


def official_key(network: DepthAnythingV2, key: str) -> str:
    """The published name of an entry of the network's state dict."""
    part, _, name = key.partition(".")
    if network.encoder_name in SIZES and SIZES[network.encoder_name].swiglu:
        name = name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")
    return f"{_OFFICIAL_PREFIX[part]}.{name}"


def _check_missing(
    missing: tuple[str, ...], wanted: Mapping[str, Tensor], network: DepthAnythingV2, path: Path, init: Init
) -> None:
    # An encoder may lack what the forward pass does not use: DINOv2 in timm has no mask token.
    unused = {official_key(network, name) for name, _ in network.encoder.named_buffers(prefix="encoder")}
    lacking = [key for key in missing if init == "all" or key not in unused]
    if not lacking:
        return
    lacks_head = all(key.startswith("depth_head.") for key in lacking if key not in unused)
    head_is_there = any(key.startswith("depth_head.") and key not in missing for key in wanted)
    only_encoder = init != "encoder" and lacks_head and any(key.startswith("depth_head.") for key in lacking)
    if only_encoder and not head_is_there:
        raise ValueError(f"{path} holds an encoder without a head. Type model.init=encoder to load the encoder alone.")
    hint = " Type model.init=encoder to load the encoder alone." if only_encoder else ""
    raise ValueError(f"{path} lacks {len(lacking)} of {len(wanted)} tensors: {', '.join(lacking)}.{hint}")


def _check_encoder(state: State, network: DepthAnythingV2, path: Path, declared: str | None) -> None:
    """Identify the encoder: that of timm by what is declared, one of Depth Anything by width and depth.

    Shapes alone are ambiguous where files of two encoders overlap.
    """
    own = network.encoder_name
    of_timm = any(key.startswith("pretrained.vit.") for key in state)
    if own not in SIZES or of_timm:
        if (own in SIZES) == of_timm or (declared is not None and architecture(declared) != architecture(own)):
            held = declared or ("an encoder of timm" if of_timm else "an encoder of Depth Anything")
            advice = f"type model.encoder={declared}, give" if declared else "give"
            raise ValueError(
                f"{path} holds {held}, and the network's encoder is {own}: {advice} weights of {own}, or type "
                "model.init=head to load the head alone."
            )
        return
    class_token = state.get("pretrained.cls_token")
    if class_token is None:
        raise ValueError(f"{path} lacks pretrained.cls_token, so it is not a complete Depth Anything encoder.")
    if registers := {"pretrained.register_tokens", "pretrained.reg_token"} & state.keys():
        raise ValueError(
            f"{path} holds a DINOv2 with registers ({', '.join(registers)}), which Depth Anything does not have: give "
            f"the one without, as in dinov2_{own}14_pretrain.pth, or choose encoder=dinov2reg_vits, _vitb or _vitl."
        )
    shape = (class_token.shape[-1], count_blocks(state, "pretrained.blocks."))
    size = SIZES[own]
    if shape != (size.width, size.depth):
        name = next((name for name, s in SIZES.items() if (s.width, s.depth) == shape), None)
        advice = f"type model={name}, or give" if name else "give"
        raise ValueError(
            f"{path} holds {name or 'an unknown encoder'} (width {shape[0]}, {shape[1]} blocks), and the network is "
            f"{own} (width {size.width}, {size.depth} blocks): {advice} weights of {own}."
        )
