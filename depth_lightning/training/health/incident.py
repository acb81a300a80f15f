"""The folder of a step that went wrong: what a person looks at, and all that it takes to go through the step again.

incident.json              what happened, and everything that was found
batch_<n>.safetensors      images, targets and masks, exactly; their ids are in incident.json
weights.safetensors        the network before the step
pictures/<n>_<image>.png   image | truth | prediction | error; what is not finite in green
"""

import json
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from depth_lightning.atomic import atomically
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.colour import NOT_FINITE
from depth_lightning.reporting.panels import draw_panel, save_png
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training.health.inspection import Findings
from depth_lightning.training.like_truth import like_truth

SPARE_BYTES = 2 * 1024**3
"""Room on the disk that a record leaves: checkpoints need it more."""


@dataclass(frozen=True)
class Circumstances:
    """The step as the run saw it."""

    reason: str
    """What was wrong, in a sentence."""
    step: int
    """Optimizer steps before this one; the step in metrics.csv."""
    epoch: int
    rank: int
    world_size: int
    loss: float
    """Averaged over the processes."""
    loss_by_process: list[float]
    gradient_norm: float
    """Of all parameters together, averaged over the processes."""
    median_loss: float
    """Of the steps before; NaN where there are too few."""
    learning_rates: dict[str, float]
    precision: str
    loss_scale: float
    device: str


class Incident(NamedTuple):
    """A folder's content."""

    circumstances: Circumstances
    findings: Findings
    config: dict[str, Any]
    """Of the run."""
    batches: list[DepthBatch]
    weights: dict[str, Tensor]
    torch: str
    """The version that it was recorded with."""


def replay_command(folder: Path) -> str:
    """What to type to go through the step again."""
    return f"python -m depth_lightning replay {shlex.quote(str(folder))}"


def room_for(folder: Path, network: DepthAnythingV2, batches: Sequence[DepthBatch]) -> bool:
    """Whether the disk has room for a record and more."""
    tensors = [*network.state_dict().values(), *(t for b in batches for t in (b.image, b.target, b.mask))]
    needed = sum(tensor.nbytes for tensor in tensors)
    return bool(shutil.disk_usage(folder).free > 2 * needed + SPARE_BYTES)


def write_incident(
    folder: Path,
    circumstances: Circumstances,
    findings: Findings,
    network: DepthAnythingV2,
    batches: Sequence[DepthBatch],
    predictions: Sequence[Tensor],
    config: Mapping[str, Any],
) -> None:
    """Write a folder, whole or not at all.

    Raises:
        FileExistsError: there is something at `folder`.
        OSError: it cannot be written.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it, or give another path.")
    with atomically(folder) as aside:
        aside.mkdir()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        (aside / "weights.safetensors").write_bytes(save(weights))
        described = []
        for number, (batch, prediction) in enumerate(zip(batches, predictions, strict=True)):
            exact = {name: getattr(batch, name).cpu().contiguous() for name in ("image", "target", "mask")}
            (aside / f"batch_{number}.safetensors").write_bytes(save(exact))
            kinds = [kind.name.lower() for kind in batch.kind]
            described.append({"id": batch.id, "scene": batch.scene, "kind": kinds, "seed": batch.seed})
            for index, picture in enumerate(_pictures(network, batch, prediction)):
                save_png(aside / "pictures" / f"{number}_{index:02d}.png", picture)
        content = {
            "replay": replay_command(folder),
            **asdict(circumstances),
            "origin": findings.origin(),
            "findings": asdict(findings),
            "batches": described,
            "torch": torch.__version__,
            "config": dict(config),
        }
        text = json.dumps(_spelt(content), indent=2, ensure_ascii=False, allow_nan=False)
        (aside / "incident.json").write_text(text + "\n", encoding="utf-8")


def read_incident(folder: Path) -> Incident:
    """Read what `write_incident` wrote.

    Raises:
        FileNotFoundError: it is no such folder, or lacks a file.
        ValueError: a file is torn.
    """
    path = folder / "incident.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no incident.json. Give the folder of one incident, such as <run>/incidents/step_000123."
        )
    try:
        content = _read(json.loads(path.read_text(encoding="utf-8")))
        circumstances = Circumstances(**{name: content[name] for name in Circumstances.__annotations__})
        findings = Findings(**content["findings"])
        weights = load_file(folder / "weights.safetensors")
        batches = [
            DepthBatch(
                **load_file(folder / f"batch_{number}.safetensors"),
                kind=tuple(DepthKind[kind.upper()] for kind in names["kind"]),
                id=tuple(names["id"]),
                scene=tuple(names["scene"]),
                seed=tuple(names["seed"]),
            )
            for number, names in enumerate(content["batches"])
        ]
    except (json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read: one of its files is torn or was changed ({error}).") from error
    return Incident(circumstances, findings, content["config"], batches, weights, content["torch"])


def _pictures(network: DepthAnythingV2, batch: DepthBatch, prediction: Tensor) -> list[np.ndarray]:
    shown = _in_unit_of_truth(network, batch, prediction)
    return [
        draw_panel(
            _as_picture(batch.image[index]),
            batch.target[index].cpu().numpy(),
            batch.mask[index].cpu().numpy(),
            shown[index].cpu().numpy(),
            kind=kind,
            unit="m" if kind == DepthKind.METRES else "",
            title=batch.id[index],
        )
        for index, kind in enumerate(batch.kind)
    ]


def _as_picture(image: Tensor) -> np.ndarray:
    """(h, w, 3) uint8 of a (3, h, w) uint8 or float image; in the colour of what is not finite where it is not."""
    if image.dtype == torch.uint8:
        return image.permute(1, 2, 0).cpu().numpy()
    pixels = image.float().permute(1, 2, 0).cpu().numpy()
    finite = np.isfinite(pixels)
    picture = (np.where(finite, pixels, 0).clip(0, 1) * 255).round().astype(np.uint8)
    picture[~finite.all(axis=-1)] = NOT_FINITE
    return picture


def _in_unit_of_truth(network: DepthAnythingV2, batch: DepthBatch, prediction: Tensor) -> Tensor:
    """Predictions that a picture can show beside their truth, fitted where both are finite."""
    usable = batch.mask & batch.target.isfinite() & prediction.isfinite()
    fitted = [
        like_truth(network, prediction[one], batch.target[one], usable[one], kind).depth
        for one, kind in ((slice(index, index + 1), kind) for index, kind in enumerate(batch.kind))
    ]
    return torch.cat(fitted)


def _spelt(value: Any) -> Any:
    """Floats that JSON has no sign for as text: nan, inf, -inf."""
    if isinstance(value, Mapping):
        return {key: _spelt(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelt(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
