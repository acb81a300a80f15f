"""The optimiser, with a learning rate per parameter group."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import Parameter

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
        groups: what the network's `parameter_groups()` returns, "encoder" and "head"; a frozen encoder is not in it.
        lr: the encoder's, which starts from pretrained weights; a random head learns faster.
        weight_decay: on every parameter, as Depth Anything V2 does.

    Raises:
        ValueError: a value that cannot be right; a group is unknown, or holds no parameter.
    """
    for name, value in (("lr", lr), ("head_lr_scale", head_lr_scale)):
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise ValueError(f"optimizer.{name} is a number above 0, found {value!r}.")
    if not (isinstance(weight_decay, int | float) and 0 <= weight_decay < math.inf):
        raise ValueError(f"optimizer.weight_decay is a number, 0 or above, found {weight_decay!r}.")
    if len(betas) != 2 or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
        raise ValueError(f"optimizer.betas are two numbers in [0, 1), found {betas!r}.")
    scales = {"encoder": 1.0, "head": head_lr_scale}
    for name, parameters in groups.items():
        if name not in scales or not parameters:
            raise ValueError(
                f"The parameter group {name!r} holds {len(parameters)} parameters; "
                f"expected the groups {' and '.join(scales)}, none of them empty."
            )
    optimizer = torch.optim.AdamW(
        [{"params": list(parameters), "lr": lr * scales[name], "name": name} for name, parameters in groups.items()],
        weight_decay=weight_decay,
        betas=(betas[0], betas[1]),
        # On a GPU one kernel, which can be told there to leave a step out (see `training.watch`).
        fused=all(parameter.is_cuda for parameters in groups.values() for parameter in parameters) or None,
    )
    # A fused optimizer offers to unscale fp16 gradients itself, after clipping, so that Lightning refuses to clip them.
    # torch 2.11 to 2.15 has it say so in this attribute alone.
    optimizer._step_supports_amp_scaling = False
    return optimizer
