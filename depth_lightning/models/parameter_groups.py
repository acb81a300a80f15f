"""A network's trainable parameters by part, with what an optimiser may treat differently: layer and role."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from timm.layers import LayerScale
from torch import nn

Role = Literal["norm", "bias", "position"]


class Place(NamedTuple):
    """Where a parameter is in its part of the network."""

    layer: int
    """From 0, the layer that reads the image."""
    above: int
    """Number of the part's layers above this one."""
    roles: frozenset[Role]
    """Empty for the weights of linears and convolutions."""


class ParameterGroups(dict[str, list[nn.Parameter]]):
    """Every trainable parameter in exactly one list, by the name of its part; a frozen part has no list.

    Args:
        parts: the parameters of every part's layers, from the lowest to the highest.
        network: whose modules decide each parameter's roles. "norm": of a norm or layer scale; "bias": every bias;
            "position": position table, class token and registers.
    """

    def __init__(self, parts: Mapping[str, Sequence[Sequence[nn.Parameter]]], network: nn.Module) -> None:
        self.places: dict[nn.Parameter, Place] = {}
        super().__init__()
        self._fill(parts, _roles(network))

    def add(self, name: str, module: nn.Module) -> None:
        """Add the parameters of a module outside the network to a part, as a layer of its own."""
        self._fill({name: [list(module.parameters())]}, _roles(module))

    def _fill(
        self, parts: Mapping[str, Sequence[Sequence[nn.Parameter]]], roles: Mapping[nn.Parameter, frozenset[Role]]
    ) -> None:
        for name, layers in parts.items():
            for number, layer in enumerate(layers):
                for parameter in layer:
                    if parameter.requires_grad:
                        self.setdefault(name, []).append(parameter)
                        self.places[parameter] = Place(number, len(layers) - 1 - number, roles[parameter])


def _roles(network: nn.Module) -> dict[nn.Parameter, frozenset[Role]]:
    found = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            roles: dict[Role, bool] = {
                # In timm, gamma_1 and gamma_2 are a block's layer scales.
                "norm": isinstance(module, nn.LayerNorm | LayerScale) or name in ("gamma_1", "gamma_2"),
                "bias": name in ("bias", "q_bias", "v_bias"),
                "position": name in ("pos_embed", "cls_token", "reg_token"),
            }
            found[parameter] = frozenset(role for role, has in roles.items() if has)
    return found
