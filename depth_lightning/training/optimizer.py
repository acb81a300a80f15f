"""The optimiser, with a learning rate per parameter group."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch.nn import Parameter

from depth_lightning.settings import number, several

ParameterGroups = Mapping[str, Sequence[Parameter]]
OptimizerFactory = Callable[[ParameterGroups], torch.optim.Optimizer]


def adamw(
    groups: ParameterGroups,
    lr: float = 5e-6,
    head_lr_scale: float = 10.0,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """AdamW on the network's groups: `lr` for the encoder, `head_lr_scale` times that for the head.

    Args:
        groups: what the network's `parameter_groups()` returns, "encoder" and "head"; a frozen encoder is left out.
        lr: for the encoder, which starts from pretrained weights; a randomly initialised head learns faster.
        weight_decay: applied to every parameter, as in Depth Anything V2.

    Raises:
        SettingError: an argument is out of range.
        ValueError: a group is unknown or empty.
    """
    lr = number("lr", lr, above=0, most=1)
    scales = {"encoder": 1.0, "head": number("head_lr_scale", head_lr_scale, above=0, most=1e6)}
    weight_decay = number("weight_decay", weight_decay, least=0, most=1e3)
    beta1, beta2 = several("betas", betas, 2, "[β1, β2], from 0 to below 1", partial(number, least=0, below=1))
    for name, parameters in groups.items():
        if name not in scales or not parameters:
            raise ValueError(
                f"The parameter group {name!r} holds {len(parameters)} parameters; "
                f"expected the groups {' and '.join(scales)}, none of them empty."
            )
    optimizer = torch.optim.AdamW(
        [{"params": list(parameters), "lr": lr * scales[name], "name": name} for name, parameters in groups.items()],
        weight_decay=weight_decay,
        betas=(beta1, beta2),
        # On a GPU this is one kernel, which can skip a step on the device (see `training.health.watch`).
        fused=all(parameter.is_cuda for parameters in groups.values() for parameter in parameters) or None,
    )
    # A fused optimizer offers to unscale fp16 gradients itself, after clipping, so Lightning refuses to clip them.
    # In torch 2.11 to 2.15 this attribute is the only way to turn that off.
    optimizer._step_supports_amp_scaling = False
    return optimizer
