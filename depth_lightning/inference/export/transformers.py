"""A folder that transformers loads with `from_pretrained`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from depth_lightning.inference.export.comparison import (
    Runner,
    check_differences,
    check_sizes,
    compare,
    dimensions,
    network_runner,
)
from depth_lightning.inference.export.layout import Export, Layout
from depth_lightning.models import DepthAnythingV2, normalize, save_weights

LIMIT = 1e-4
"""Largest allowed difference at the size of the position table, relative to the prediction's range."""
_ELSEWHERE = (
    "At sizes other than {size}, transformers resamples the position table differently (by size, without the 0.1 "
    "patches that DINOv2 adds), so its depth differs from that of the official code and of this project: at {other} by "
    "up to {largest:.1%} and on average {mean:.1%} of the range."
)
_USAGE = """
from transformers import pipeline

{quantity} = pipeline("depth-estimation", "path/to/this/folder")("photo.jpg")["predicted_depth"]
"""


class Transformers(Layout):
    """Configuration, image processor and weights."""

    name = "transformers"
    packages = ("transformers",)
    library = "transformers"

    def write(self, network: DepthAnythingV2, folder: Path, metadata: Mapping[str, Any], side: int) -> Export:
        """Write the folder, which must agree with the network at the size of the position table only."""
        save_weights(network, folder, "transformers", metadata)
        run = transformers_runner(folder)
        rows, columns = check_sizes(network, side)[0]
        sizes = [(rows, columns), (rows, columns + 12 * network.encoder.patch)]
        there, elsewhere = differences = list(compare(run, network_runner(network), sizes))
        check_differences([there], LIMIT)
        note = _ELSEWHERE.format(
            size=dimensions(there.size),
            other=dimensions(elsewhere.size),
            largest=elsewhere.largest,
            mean=elsewhere.mean,
        )
        return Export([note], run, differences)

    def usage(self, quantity: str) -> str:
        """Python code for transformers' pipeline."""
        return _USAGE.format(quantity=quantity)

    @property
    def limits(self) -> Sequence[str]:
        """Its different resampling of the position table."""
        return ["Its depth equals that of the authors' code at one size only; see the last section."]


def transformers_runner(folder: Path) -> Runner:
    """The folder as `from_pretrained` reads it, without a network.

    Raises:
        ValueError: tensors are missing or unexpected.
    """
    from transformers import DepthAnythingForDepthEstimation
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded: Any = DepthAnythingForDepthEstimation.from_pretrained(
        folder, local_files_only=True, output_loading_info=True
    )
    model, info = loaded
    if wrong := {name: keys for name, keys in info.items() if keys and name.endswith("_keys")}:
        raise ValueError(f"transformers does not load the weights unchanged: {wrong}")
    model = model.eval()
    return lambda image: cast(Tensor, model(normalize(image)).predicted_depth)
