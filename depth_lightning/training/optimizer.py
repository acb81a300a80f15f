"""The optimiser, with a learning rate per parameter group."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, get_args

import torch

from depth_lightning.models.parameter_groups import ParameterGroups, Role
from depth_lightning.settings import SettingError, number, one_of, optional, several

OptimizerFactory = Callable[[ParameterGroups], torch.optim.Optimizer]


def adamw(
    groups: ParameterGroups,
    lr: float = 5e-6,
    head_lr_scale: float = 10.0,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.999),
    layer_decay: float | None = None,
    no_decay: Sequence[Role] = (),
) -> torch.optim.AdamW:
    """AdamW on the network's groups: `lr` for the encoder, `head_lr_scale` times that for the head.

    With `layer_decay` or `no_decay`, each of these groups is divided further, and its parts' names begin with its own.

    Args:
        groups: what the network's `parameter_groups()` returns, "encoder" and "head"; a frozen encoder is left out.
        lr: for the encoder, which starts from pretrained weights; a randomly initialised head learns faster.
        weight_decay: applied to every parameter, as in Depth Anything V2.
        layer_decay: a layer of the encoder learns at this power of `layer_decay` times `lr`: the number of layers above
            it (Clark et al., 2020, arXiv:2003.10555, as in timm). Lower layers change less, which helps on little data.
            None: all at `lr`.
        no_decay: parameters without weight decay: "norm" (norms and layer scales), "bias" (every bias), "position"
            (position table and class token). timm exempts all three.

    Raises:
        SettingError: an argument is out of range.
        ValueError: a group is unknown or empty.
    """
    lr = number("lr", lr, above=0, most=1)
    scales = {"encoder": 1.0, "head": number("head_lr_scale", head_lr_scale, above=0, most=1e6)}
    weight_decay = number("weight_decay", weight_decay, least=0, most=1e3)
    beta1, beta2 = several("betas", betas, 2, "[β1, β2], from 0 to below 1", partial(number, least=0, below=1))
    layer_decay = optional("layer_decay", layer_decay, partial(number, above=0, most=1))
    choices = get_args(Role)
    what = f"a list of {', '.join(choices)}"
    exempt = several("no_decay", no_decay, None, what, partial(one_of, choices=choices))
    if layer_decay is not None and "encoder" not in groups:
        raise SettingError("layer_decay", f"divides the rate of the encoder, which is frozen; found {layer_decay}.")
    for name, parameters in groups.items():
        if name not in scales or not parameters:
            raise ValueError(
                f"The parameter group {name!r} holds {len(parameters)} parameters; "
                f"expected the groups {' and '.join(scales)}, none of them empty."
            )
    optimizer = torch.optim.AdamW(
        [
            group
            for name in groups
            for group in _divided(groups, name, lr * scales[name], layer_decay if name == "encoder" else None, exempt)
        ],
        weight_decay=weight_decay,
        betas=(beta1, beta2),
        # On a GPU this is one kernel, which can skip a step on the device (see `training.health.watch`).
        fused=all(parameter.is_cuda for parameters in groups.values() for parameter in parameters) or None,
    )
    # A fused optimizer offers to unscale fp16 gradients itself, after clipping, so Lightning refuses to clip them.
    # In torch 2.11 to 2.15 this attribute is the only way to turn that off.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def _divided(
    groups: ParameterGroups, part: str, lr: float, layer_decay: float | None, exempt: Sequence[Role]
) -> Iterable[dict[str, Any]]:
    """The optimizer's groups for a part of the network, lowest layer first; the part itself if nothing divides it."""
    if layer_decay is None and not exempt:
        return [{"params": list(groups[part]), "lr": lr, "name": part}]
    divided: dict[str, dict[str, Any]] = {}
    for parameter in groups[part]:
        place = groups.places[parameter]
        group: dict[str, Any] = {"params": [], "lr": lr, "name": part, "part": part}
        if layer_decay is not None:
            group["name"] += f".layer_{place.layer}"
            group["lr"] *= layer_decay**place.above
        if place.roles.intersection(exempt):
            group["name"] += ".no_decay"
            group["weight_decay"] = 0.0
        divided.setdefault(group["name"], group)["params"].append(parameter)
    return divided.values()
