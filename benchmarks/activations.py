"""Memory required by a training step, counted on fake tensors without a GPU and without computing anything.

The count includes the weights, their gradients, AdamW's two moments, and the activations saved for the backward pass.
It excludes temporary buffers of single operations, which `memory.py` measures on a GPU.
"""

from typing import Any

import torch
from timing import parser, report
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from depth_lightning.losses import SiLogLoss
from depth_lightning.models import DepthAnythingV2

OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": None},
    "float16": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "bfloat16, recompute_blocks": {"dtype": torch.bfloat16, "recompute_blocks": True},
    "bfloat16, freeze_encoder": {"dtype": torch.bfloat16, "freeze_encoder": True},
}


def main() -> None:
    """Count, print and save."""
    arguments = parser(__doc__)
    arguments.add_argument("--encoders", nargs="+", default=["vits", "vitb", "vitl"])
    arguments.add_argument("--batch-sizes", nargs="+", type=int, default=[1, 8, 11])
    chosen = arguments.parse_args()
    rows, values = [], {}
    for encoder in chosen.encoders:
        for name, option in OPTIONS.items():
            state, _ = gigabytes(encoder, 1, **option)
            kept = [gigabytes(encoder, batch_size, **option)[1] for batch_size in chosen.batch_sizes]
            rows.append([f"{encoder}, {name}", f"{state:.2f}", *(f"{state + activations:.1f}" for activations in kept)])
            values[f"{encoder}, {name}"] = {
                "state_gb": state,
                "kept_gb": dict(zip(chosen.batch_sizes, kept, strict=True)),
            }
    batches = {f"in all, batch {batch_size}": True for batch_size in chosen.batch_sizes}
    report("activations", {"training at 518×518, GB": False, "weights and AdamW": True, **batches}, rows, values)


def gigabytes(
    encoder: str,
    batch_size: int,
    dtype: torch.dtype | None,
    recompute_blocks: bool = False,
    freeze_encoder: bool = False,
) -> tuple[float, float]:
    """GiB of weights, gradients and moments; and GiB of saved activations."""
    network = DepthAnythingV2(encoder, freeze_encoder=freeze_encoder, recompute_blocks=recompute_blocks)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    trained = sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept.append(tensor)
        return tensor

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        image, target = torch.empty(batch_size, 3, 518, 518), torch.empty(batch_size, 518, 518)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            prediction = network(image)
        SiLogLoss()(prediction, target, target > 0)
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in kept}
    return (weights + 3 * trained) / 2**30, sum(storages.values()) / 2**30


if __name__ == "__main__":
    main()
