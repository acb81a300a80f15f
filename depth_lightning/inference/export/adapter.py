"""The adapters and the trained head alone, a few MB, as PEFT writes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from depth_lightning.atomic import write_bytes, write_text
from depth_lightning.inference.export.comparison import check_differences, check_sizes, compare, network_runner
from depth_lightning.inference.export.layout import Export, Layout
from depth_lightning.models import DepthAnythingV2
from depth_lightning.models.adapters import is_adapters, learning_part, peft_config, plain_copy
from depth_lightning.models.checkpoints import to_json, with_kind
from depth_lightning.settings import SettingError

LIMIT = 1e-5
"""Largest allowed difference, relative to the prediction's range."""
_USAGE = """
import json
from depth_lightning.models import DepthAnythingV2, load_weights, normalize, resolve_weights
from peft import PeftModel

made = json.load(open("metadata.json"))
own = {{key: made[key] for key in ("encoder", "output", "max_depth", "head", "taps", "focal_px") if key in made}}
network = DepthAnythingV2(**own)
load_weights(network, resolve_weights(made["starting_weights"]), init=made["init"])
network = PeftModel.from_pretrained(network, ".").merge_and_unload().eval()
{quantity} = network(normalize(image))  # (b, 3, h, w) RGB in [0, 1], h and w multiples of network.encoder.patch
"""


class Adapter(Layout):
    """`adapter_model.safetensors` and `adapter_config.json`, which PEFT loads onto the network it was trained from."""

    name = "adapter"
    packages = ("peft",)
    extra = "adapters"
    library = "peft"
    takes_adapters = True

    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """Write the folder, and load it with PEFT onto the network's weights from before training.

        Raises:
            SettingError: the network has no adapters.
        """
        from peft import PeftModel

        if network.adapter is None:
            raise SettingError("layout", "is adapter, but the network was not trained with adapter=lora.")
        plain = plain_copy(network)
        config = peft_config(plain, network.adapter)
        learns_itself = learning_part(network.adapter)
        config.modules_to_save, config.inference_mode = [learns_itself], True
        config.base_model_name_or_path = metadata.get("starting_weights")
        folder.mkdir()
        config.save_pretrained(str(folder))
        state = {
            f"base_model.model.{key.replace('.default.', '.')}": tensor.detach().cpu().contiguous()
            for key, tensor in network.state_dict().items()
            if is_adapters(key) or key.startswith(f"{learns_itself}.")
        }
        write_bytes(folder / "adapter_model.safetensors", save(state, metadata={"format": "pt"}))
        own = {**metadata, "init": "all" if network.adapter.head else "encoder"}
        write_text(folder / "metadata.json", to_json(with_kind(network, own)))
        for parameter in plain.get_submodule(learns_itself).parameters():
            nn.init.zeros_(parameter)  # what the files do not hold is not taken from the network
        loaded = PeftModel.from_pretrained(plain, str(folder)).eval()
        differences = list(compare(network_runner(loaded), network_runner(network), check_sizes(network, side)))
        check_differences(differences, LIMIT)
        size = sum(tensor.nbytes for tensor in state.values()) / 1e6
        return Export(
            [f"{size:.1f} MB, compared as PEFT loads it onto the weights from before training."], None, differences
        )

    def usage(self, quantity: str) -> str:
        """Python code for PEFT."""
        return _USAGE.format(quantity=quantity)

    @property
    def limits(self) -> Sequence[str]:
        """What it needs beside it."""
        return ["The files hold what was trained; the rest is that of the weights it started from, and of no others."]
