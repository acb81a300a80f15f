"""Low-rank adapters (LoRA: Hu et al., 2021, arXiv:2106.09685) through PEFT: few weights learn beside frozen ones.

PEFT puts each adapted layer into one of its own: its weights become `<layer>.base_layer.weight`, beside
`<layer>.lora_A.default.weight` (r, in, …) and `<layer>.lora_B.default.weight` (out, r, …).
"""

import copy
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn

from depth_lightning.models.block import Block
from depth_lightning.settings import SettingError, boolean, number, one_of, several, whole_number

if TYPE_CHECKING:
    from peft import LoraConfig

    from depth_lightning.models.depth_anything import DepthAnythingV2

Linear = Literal["qkv", "proj", "fc1", "fc2"]
_LINEARS = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


class LoRA:
    """Which layers get an adapter, and of which kind.

    Args:
        rank: of the matrix that an adapter adds to its layer's.
        alpha: what an adapter adds is multiplied by alpha / rank.
        dropout: share of an adapter's inputs that are set to 0 in training, in [0, 1).
        linears: of every block of the encoder.
        head: also the head's convolutions, of which then only the last, with 33 weights, learns itself.

    Raises:
        SettingError: a value is out of range.
    """

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        linears: Sequence[Linear] = ("qkv", "proj", "fc1", "fc2"),
        head: bool = False,
    ) -> None:
        self.rank = whole_number("rank", rank)
        self.alpha = number("alpha", alpha, above=0, most=1e6)
        self.dropout = number("dropout", dropout, least=0, below=1)
        what = f"a list of some of {', '.join(_LINEARS)}, each once"
        self.linears: tuple[Linear, ...] = several("linears", linears, None, what, partial(one_of, choices=_LINEARS))
        if not 0 < len(self.linears) == len(set(self.linears)):
            raise SettingError("linears", f"is {what}, found {linears!r}.")
        self.head = boolean("head", head)

    @property
    def scale(self) -> float:
        """The factor on what an adapter adds."""
        return self.alpha / self.rank


def of_run(config: Mapping[str, Any] | None) -> LoRA | None:
    """The adapters of a run, from its configuration."""
    node = (config or {}).get("adapter")
    return LoRA(**{name: node[name] for name in inspect.signature(LoRA).parameters if name in node}) if node else None


def add_adapters(network: "DepthAnythingV2", lora: LoRA) -> None:
    """Add adapters, in place, and freeze everything else but the head. At first they add 0.

    Raises:
        ModuleNotFoundError: PEFT is not installed.
        SettingError: `lora` is something else.
    """
    if not isinstance(lora, LoRA):
        raise SettingError("adapter", f"is a LoRA, found {lora!r}. In train.py, type adapter=lora.")
    if importlib.util.find_spec("peft") is None:
        raise ModuleNotFoundError("adapter=lora needs peft, not installed: pip install 'depth-lightning[adapters]'")
    from peft import inject_adapter_in_model

    inject_adapter_in_model(peft_config(network, lora), network)
    network.get_submodule(learning_part(lora)).requires_grad_(True)
    for block in network.encoder.blocks:
        if isinstance(block, Block):
            block.has_adapters = True


def learning_part(lora: LoRA) -> str:
    """The name of the module whose own weights learn beside the adapters."""
    return "head.scratch.output_conv2.2" if lora.head else "head"


def peft_config(network: "DepthAnythingV2", lora: LoRA) -> "LoraConfig":
    """PEFT's description of the adapters.

    Args:
        network: without adapters.
        lora: which to describe.

    Raises:
        SettingError: the encoder's blocks do not have such linears.
    """
    from peft import LoraConfig

    adaptable = _adaptable(network.encoder.blocks[0])
    if not set(lora.linears) <= set(adaptable):
        own = f"some of {', '.join(adaptable)} with encoder={network.encoder_name}"
        raise SettingError("adapter.linears", f"are {own}, found {list(lora.linears)}.")
    names = {module: name for name, module in network.named_modules()}
    targets = [f"{names[block]}.{_LINEARS[name]}" for block in network.encoder.blocks for name in lora.linears]
    if lora.head:
        # The layers that are never called have buffers instead.
        targets += [
            name
            for name, module in network.head.named_modules(prefix="head")
            if type(module) is nn.Conv2d and isinstance(module.weight, nn.Parameter)
        ]
    return LoraConfig(r=lora.rank, lora_alpha=cast(int, lora.alpha), lora_dropout=lora.dropout, target_modules=targets)


def _adaptable(block: nn.Module) -> list[str]:
    """The linears of a block that it calls. timm's EVA with separate biases only reads the weights of its qkv."""
    layers = {path for path, module in block.named_modules() if isinstance(module, nn.Linear)}
    reads_qkv = getattr(block.attn, "q_bias", None) is not None
    return [name for name, path in _LINEARS.items() if path in layers and not (name == "qkv" and reads_qkv)]


def is_adapters(key: str) -> bool:
    """Whether a parameter, named by its key in the state dict, belongs to an adapter."""
    return not {"lora_A", "lora_B"}.isdisjoint(key.split("."))


def is_first_matrix(key: str) -> bool:
    """Whether it is the one that reads the adapter's input; the one that writes its output starts at 0."""
    return "lora_A" in key.split(".")


def without_adapters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors themselves, of a state dict, under the names that they have without adapters."""
    return {key.replace(".base_layer.", "."): tensor for key, tensor in state.items() if not is_adapters(key)}


def merge_state(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """The state dict of the network without adapters that predicts the same."""
    merged = without_adapters(state)
    for key, first in state.items():
        layer, adapter, _ = key.partition(".lora_A.")
        if adapter:
            second, name = state[key.replace(".lora_A.", ".lora_B.")], f"{layer}.weight"
            change = scale * second.flatten(1).double() @ first.flatten(1).double()
            merged[name] = (merged[name] + change.view(merged[name].shape)).to(first.dtype)
    return merged


def plain_copy(network: "DepthAnythingV2") -> "DepthAnythingV2":
    """A copy without adapters, as if they had never been added."""
    plain = copy.deepcopy(network)
    for name, module in list(plain.named_modules()):
        if isinstance(base := getattr(module, "base_layer", None), nn.Module):
            plain.set_submodule(name, base)
        elif isinstance(module, Block):
            module.has_adapters = False
    plain.adapter = None
    del plain.peft_config  # PEFT's, which would take the network for one with adapters
    return plain


def merged(network: "DepthAnythingV2") -> "DepthAnythingV2":
    """A network without adapters that predicts the same; the network itself if it has none."""
    if network.adapter is None:
        return network
    plain = plain_copy(network)
    plain.load_state_dict(merge_state(network.state_dict(), network.adapter.scale))
    return plain
