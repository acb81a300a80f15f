"""The configuration files of a transformers folder, written without importing transformers."""

from typing import Any

from depth_lightning.models.depth_anything import IMAGENET_MEAN, IMAGENET_STD, DepthAnythingV2
from depth_lightning.models.dinov2 import PATCH
from depth_lightning.models.sizes import SIZES


def transformers_config(network: DepthAnythingV2) -> dict[str, Any]:
    """The config.json of `DepthAnythingForDepthEstimation`.

    Raises:
        ValueError: transformers cannot build this network: its `max_depth` is not a whole number of metres, or its
            position table is not square.
    """
    size = SIZES[network.encoder_name]
    rows, columns = size.grid
    if rows != columns:
        raise ValueError(
            f"transformers needs a square position table, and that of {network.encoder_name} is {rows}×{columns}: "
            "save it with layout=official or layout=safetensors."
        )
    metric: dict[str, Any] = {}
    if network.output == "metric":
        if network.max_depth != int(network.max_depth):
            raise ValueError(
                f"transformers (from 5 on) takes only whole metres as max_depth, and this network has "
                f"{network.max_depth:g}: save it with layout=official or layout=safetensors, or train it with "
                f"model.max_depth={int(network.max_depth) + 1}."
            )
        metric = {"max_depth": int(network.max_depth)}
    indices = [tap + 1 for tap in size.taps]  # stage 0 is the input of the first block
    return {
        "architectures": ["DepthAnythingForDepthEstimation"],
        "model_type": "depth_anything",
        "depth_estimation_type": network.output,
        **metric,
        "backbone_config": {
            "model_type": "dinov2",
            "architectures": ["Dinov2Model"],
            "image_size": PATCH * rows,
            "patch_size": PATCH,
            "hidden_size": size.width,
            "num_hidden_layers": size.depth,
            "num_attention_heads": size.heads,
            "use_swiglu_ffn": size.swiglu,
            "out_features": [f"stage{index}" for index in indices],
            "out_indices": indices,
            "apply_layernorm": True,
            "reshape_hidden_states": False,
        },
        "patch_size": PATCH,
        "reassemble_hidden_size": size.width,
        "reassemble_factors": [4, 2, 1, 0.5],
        "neck_hidden_sizes": [project.out_channels for project in network.head.projects],
        "fusion_hidden_size": network.head.scratch.output_conv1.in_channels,
        "head_hidden_size": 32,
        "head_in_index": -1,
        "dtype": "float32",
    }


def image_processor_config(size: int) -> dict[str, Any]:
    """The preprocessor_config.json of the published -hf repositories, for images with a shorter side of `size`."""
    return {
        "image_processor_type": "DPTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": PATCH,
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "do_pad": False,
        "size_divisor": None,
    }
