"""Conversion of state dicts between the published layout and all others of Depth Anything V2 and DINOv2 weights.

In the published layout `pretrained.*` is the encoder and `depth_head.*` the head. All functions are pure; tensors are
copied only where necessary.
"""

from typing import Literal

import torch
from torch import Tensor

State = dict[str, Tensor]
Layout = Literal["official", "transformers", "Lightning", "DINOv2", "timm DINOv2", "timm"]
ENCODER_LAYOUTS: tuple[Layout, ...] = ("DINOv2", "timm DINOv2", "timm")
"""Of an encoder without a head; "timm" is that of any encoder in `timm_encoder`, which timm itself converts."""

_QKV = ("query", "key", "value")


def to_official(state: State) -> tuple[Layout, State] | None:
    """The layout of a state dict, and its tensors under the published keys; None if no layout is recognised.

    Keys that are not part of the layout keep their names. "DINOv2" and "timm DINOv2" are encoders without a head.
    """
    layout = _find_layout(state)
    if layout is None:
        return None
    if layout == "transformers":
        state = _from_transformers(state)
    elif layout == "Lightning":
        prefixes = {"network.encoder.": "pretrained.", "network.head.": "depth_head."}
        state = _swiglu_to_official({_replace_prefix(key, prefixes): tensor for key, tensor in state.items()})
    elif layout != "official":
        state = _swiglu_to_official({f"pretrained.{key}": tensor for key, tensor in state.items()})
    mask_token = state.get("pretrained.mask_token")
    if mask_token is not None and mask_token.ndim == 3:  # some files have an extra dimension
        state = {**state, "pretrained.mask_token": mask_token.squeeze(1)}
    return layout, state


def to_transformers(state: State) -> State:
    """Rename published keys to those of the -hf files on the hub, which every version of transformers reads.

    Queries, keys and values share one matrix in the published layout; it is split into three.
    """
    names = _transformers_names(count_blocks(state, "pretrained.blocks."))
    renamed = {}
    for key, tensor in state.items():
        block, attention, parameter = key.partition(".attn.qkv.")
        if attention:
            base = f"{block.replace('pretrained.blocks.', 'backbone.encoder.layer.')}.attention.attention"
            for name, part in zip(_QKV, tensor.chunk(3), strict=True):
                renamed[f"{base}.{name}.{parameter}"] = part.clone()  # safetensors refuses shared memory
        else:
            renamed[_rename(key, names)] = tensor
    return renamed


def count_blocks(state: State, prefix: str) -> int:
    """Number of transformer blocks: the highest block number plus one, in keys `<prefix><number>.<name>`."""
    numbers = (key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def _find_layout(state: State) -> Layout | None:
    def some_key_starts(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in state)

    if some_key_starts("pretrained."):
        return "official"
    if some_key_starts("network.encoder."):
        return "Lightning"
    if some_key_starts("backbone.embeddings."):
        return "transformers"
    if "cls_token" in state and "pos_embed" in state and some_key_starts("blocks."):
        return "DINOv2" if "mask_token" in state else "timm DINOv2"
    return None


def _from_transformers(state: State) -> State:
    depth = count_blocks(state, "backbone.encoder.layer.")
    names = {theirs: official for official, theirs in _transformers_names(depth).items()}
    names |= {  # as transformers 5 names it in memory
        f"backbone.encoder.layer.{block}.attention.o_proj": f"pretrained.blocks.{block}.attn.proj"
        for block in range(depth)
    }
    rest, joined = dict(state), {}
    for block in range(depth):
        base = f"backbone.encoder.layer.{block}.attention"
        for triple in ([f"{base}.attention.{name}" for name in _QKV], [f"{base}.{name[0]}_proj" for name in _QKV]):
            for parameter in ("weight", "bias"):
                keys = [f"{module}.{parameter}" for module in triple]
                if all(key in rest for key in keys):
                    joined[f"pretrained.blocks.{block}.attn.qkv.{parameter}"] = torch.cat([rest.pop(k) for k in keys])
    return {_rename(key, names): tensor for key, tensor in rest.items()} | joined


def _transformers_names(depth: int) -> dict[str, str]:
    """Published name → transformers' name of each parameter or of its module, except for q, k and v."""
    names = {
        "pretrained.cls_token": "backbone.embeddings.cls_token",
        "pretrained.mask_token": "backbone.embeddings.mask_token",
        "pretrained.pos_embed": "backbone.embeddings.position_embeddings",
        "pretrained.patch_embed.proj": "backbone.embeddings.patch_embeddings.projection",
        "pretrained.norm": "backbone.layernorm",
        "depth_head.scratch.output_conv1": "head.conv1",
        "depth_head.scratch.output_conv2.0": "head.conv2",
        "depth_head.scratch.output_conv2.2": "head.conv3",
    }
    in_block = {
        "norm1": "norm1",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "norm2": "norm2",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "mlp.w12": "mlp.weights_in",
        "mlp.w3": "mlp.weights_out",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    for block in range(depth):
        for official, theirs in in_block.items():
            names[f"pretrained.blocks.{block}.{official}"] = f"backbone.encoder.layer.{block}.{theirs}"
    for level in range(4):
        names[f"depth_head.projects.{level}"] = f"neck.reassemble_stage.layers.{level}.projection"
        names[f"depth_head.resize_layers.{level}"] = f"neck.reassemble_stage.layers.{level}.resize"
        names[f"depth_head.scratch.layer{level + 1}_rn"] = f"neck.convs.{level}"
        official, theirs = f"depth_head.scratch.refinenet{4 - level}", f"neck.fusion_stage.layers.{level}"
        names[f"{official}.out_conv"] = f"{theirs}.projection"
        for unit in (1, 2):
            for conv in (1, 2):
                unit_name = f"{theirs}.residual_layer{unit}.convolution{conv}"
                names[f"{official}.resConfUnit{unit}.conv{conv}"] = unit_name
    return names


def _rename(key: str, names: dict[str, str]) -> str:
    module, _, parameter = key.rpartition(".")
    return names[key] if key in names else f"{names[module]}.{parameter}" if module in names else key


def _replace_prefix(key: str, prefixes: dict[str, str]) -> str:
    for prefix, replacement in prefixes.items():
        if key.startswith(prefix):
            return replacement + key.removeprefix(prefix)
    return key


def _swiglu_to_official(state: State) -> State:
    """timm uses a plain MLP's names for a packed SwiGLU; its first layer is twice as wide as its second expects."""
    first, second = (state.get(f"pretrained.blocks.0.mlp.{name}.weight") for name in ("fc1", "fc2"))
    if first is None or second is None or first.shape[0] != 2 * second.shape[-1]:
        return state
    return {key.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3."): t for key, t in state.items()}
