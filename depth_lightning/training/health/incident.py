"""The folder of a bad step: what a person looks at, and everything needed to replay the step.

incident.json              what happened, and all findings
batch_<n>.safetensors      the exact images, targets, masks and intrinsics; their ids are in incident.json
weights.safetensors        the network before the step
pictures/<n>_<image>.png   image | truth | prediction | error; values that are not finite in green
"""

import json
import math
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Final, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from depth_lightning.atomic import atomically
from depth_lightning.data.reading import BrokenError, naming, read_text, reading
from depth_lightning.invocation import command_line
from depth_lightning.models import DepthAnythingV2
from depth_lightning.reporting.colour import NOT_FINITE
from depth_lightning.reporting.panels import draw_panel, save_png
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training.health.inspection import Findings
from depth_lightning.training.like_truth import like_truth

T = TypeVar("T")
AGAIN: Final = "Copy the folder again."
TENSORS: Final = ("image", "target", "mask", "intrinsics")
"""Of a batch, as they are recorded. Earlier records have no intrinsics, which are then unknown."""
SPARE_BYTES = 2 * 1024**3
"""Disk space that a record must leave free for checkpoints."""


@dataclass(frozen=True)
class Circumstances:
    """The step as the run saw it."""

    reason: str
    """What was wrong, in one sentence."""
    step: int
    """Optimizer steps before this one; the same number as in metrics.csv."""
    epoch: int
    rank: int
    world_size: int
    loss: float
    """Averaged over the processes."""
    loss_by_process: list[float]
    gradient_norm: float
    """Of all parameters together, averaged over the processes."""
    median_loss: float
    """Of the previous steps; NaN if there are too few."""
    learning_rates: dict[str, float]
    precision: str
    loss_scale: float
    device: str


class Incident(NamedTuple):
    """The content of an incident's folder."""

    circumstances: Circumstances
    findings: Findings
    config: dict[str, Any]
    """Of the run."""
    batches: list[DepthBatch]
    weights: dict[str, Tensor]
    torch: str
    """The version of torch that recorded it."""


def replay_command(folder: Path) -> str:
    """The command that replays the step."""
    return f"{command_line('replay')} {shlex.quote(str(folder))}"


def room_for(folder: Path, network: DepthAnythingV2, batches: Sequence[DepthBatch]) -> bool:
    """Whether the disk has space for a record, and `SPARE_BYTES` beyond."""
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
    """Write an incident's folder, completely or not at all.

    Raises:
        FileExistsError: `folder` exists already.
        OSError: the folder cannot be written.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it, or give another path.")
    with atomically(folder) as aside:
        aside.mkdir()
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        (aside / "weights.safetensors").write_bytes(save(weights))
        described = []
        for number, (batch, prediction) in enumerate(zip(batches, predictions, strict=True)):
            exact = {name: getattr(batch, name).cpu().contiguous() for name in TENSORS}
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
        text = json.dumps(_written(content), indent=2, ensure_ascii=False, allow_nan=False)
        (aside / "incident.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_incident(folder: Path) -> Incident:
    """Read what `write_incident` wrote.

    Raises:
        FileNotFoundError: `folder` is not an incident's folder, or a file is missing.
        ValueError: a file is truncated or was changed.
    """
    path = folder / "incident.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no incident.json. Give the folder of one incident, such as <run>/incidents/step_000123."
        )
    with naming(path, "the record of a bad step", AGAIN):
        content = _read(json.loads(read_text(path)))
        circumstances = _checked(Circumstances, content)
        findings = _checked(Findings, content["findings"])
        config, version, described = content["config"], content["torch"], content["batches"]
        if not isinstance(config, dict):
            raise BrokenError("expected the configuration of the run, found none, so the network cannot be rebuilt.")
        if not isinstance(described, list):
            raise BrokenError(f"expected a list of batches, found {described!r:.80}.")
        if circumstances.loss_scale <= 0:
            raise BrokenError(f"expected a loss_scale above 0, found {circumstances.loss_scale}.")
    batches = [_batch(folder / f"batch_{number}.safetensors", names) for number, names in enumerate(described)]
    return Incident(circumstances, findings, config, batches, _tensors(folder / "weights.safetensors"), version)


def _checked(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from a file, whose fields must be of the declared types."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in values}
    for name, hint in hints.items():
        if not _is(values[name], hint):
            raise BrokenError(
                f"expected {name} as {hint if get_origin(hint) else hint.__name__}, found {values[name]!r:.80}."
            )
    return kind(**{name: values[name] for name in hints})


def _is(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of a declared type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_is(value, part) for part in parts)
    if origin is list:
        return isinstance(value, list) and all(_is(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(item, parts[1]) for item in value.values())
    return type(value) in ((int, float) if hint is float else (hint,))


def _tensors(path: Path) -> dict[str, Tensor]:
    with reading(path, "tensors in safetensors' format", AGAIN):
        return load_file(path)


def _batch(path: Path, described: Mapping[str, Any]) -> DepthBatch:
    tensors = _tensors(path)
    with naming(path, "a batch, as incident.json describes it", AGAIN):
        batch = DepthBatch(
            **{"intrinsics": torch.full((len(described["id"]), 4), torch.nan), **tensors},
            kind=tuple(DepthKind[kind.upper()] for kind in described["kind"]),
            id=tuple(map(str, described["id"])),
            scene=tuple(map(str, described["scene"])),
            seed=tuple(described["seed"]),
        )
        count, _, height, width = batch.image.shape
        if not (
            batch.image.shape[1] == 3
            and batch.target.shape == batch.mask.shape == (count, height, width)
            and batch.intrinsics.shape == (count, 4)
            and len(batch.kind) == len(batch.id) == count
            and (batch.image.dtype, batch.target.dtype, batch.mask.dtype, batch.intrinsics.dtype)
            in ((image, torch.float32, torch.bool, torch.float32) for image in (torch.uint8, torch.float32))
        ):
            shapes = ", ".join(f"{name} {tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items())
            raise BrokenError(
                f"expected images, targets and masks of one size, and intrinsics, found {shapes}. {AGAIN}"
            )
        return batch


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
    """(h, w, 3) uint8 from a (3, h, w) uint8 or float image; pixels that are not finite get their own colour."""
    if image.dtype == torch.uint8:
        return image.permute(1, 2, 0).cpu().numpy()
    pixels = image.float().permute(1, 2, 0).cpu().numpy()
    finite = np.isfinite(pixels)
    picture = (np.where(finite, pixels, 0).clip(0, 1) * 255).round().astype(np.uint8)
    picture[~finite.all(axis=-1)] = NOT_FINITE
    return picture


def _in_unit_of_truth(network: DepthAnythingV2, batch: DepthBatch, prediction: Tensor) -> Tensor:
    """Predictions in the unit of their ground truth, aligned over the pixels where both are finite."""
    usable = batch.mask & batch.target.isfinite() & prediction.isfinite()
    aligned = [
        like_truth(network, prediction[single], batch.target[single], usable[single], kind).depth
        for single, kind in ((slice(index, index + 1), kind) for index, kind in enumerate(batch.kind))
    ]
    return torch.cat(aligned)


def _written(value: Any) -> Any:
    """The value with floats that JSON cannot represent as text: nan, inf, -inf."""
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _read(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value
