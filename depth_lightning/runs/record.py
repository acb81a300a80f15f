"""The record of a network: which weights it started from, how it was trained, and how it scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from depth_lightning.data.augmentation import augmentation_in_words, augmentation_options
from depth_lightning.evaluation.metrics_file import read_metrics
from depth_lightning.models import find_release
from depth_lightning.models.provenance import metadata_path, read_json
from depth_lightning.models.weight_files import read_weights
from depth_lightning.version import version
from depth_lightning.wording import counted


@dataclass(frozen=True)
class Origin:
    """The released or other weights that a network was trained from."""

    name: str | None
    """A hub id, or the name of a file; None if the network started from random weights."""
    licence: str | None
    """None if unknown."""


def find_origin(weights: str | Path | None, passed: frozenset[Path] = frozenset()) -> Origin:
    """The origin of `model.weights`, traced through this project's exports and checkpoints to where they started.

    Args:
        weights: a path or a hub id.
        passed: the files already visited, each of which names the next.

    Raises:
        ValueError: a file on the way cannot be read.
    """
    if weights is None:
        return Origin(None, None)
    release = find_release(weights)
    if release is not None:
        return Origin(release.repo, release.licence)
    path = Path(weights).expanduser()
    if path.absolute() in passed:
        return Origin(None, None)  # a cycle, which no run of this project produces
    metadata = metadata_path(path)
    if metadata.is_file() and "starting_weights" in (content := read_json(metadata)):
        return Origin(content["starting_weights"], content.get("licence"))
    if path.is_file() and (config := read_weights(path).run_config) is not None:
        model = config.get("model")
        named = model.get("weights") if isinstance(model, Mapping) else None
        return find_origin(named, passed | {path.absolute()})
    return Origin(path.name, None)


def find_numbers(checkpoint: str | None, weights: str | None, metrics: str | None) -> dict[str, Any] | None:
    """The content of the metrics.json for this checkpoint or these weights; None if there is none.

    Args:
        checkpoint: of a run, whose metrics.json lies beside its folder `checkpoints`.
        weights: typed instead of a checkpoint.
        metrics: a metrics.json of evaluate.py, if not the run's own.

    Raises:
        FileNotFoundError: `metrics` does not exist.
        ValueError: it scores another network, or is not a metrics.json.
    """
    own = Path(checkpoint).expanduser().absolute().parent.parent / "metrics.json" if checkpoint else None
    path = own if metrics is None else Path(metrics).expanduser()
    if path is None or (metrics is None and not path.is_file()):
        return None
    if not path.is_file():
        raise FileNotFoundError(f"metrics_file={path}: there is no such file; expected a metrics.json of evaluate.py.")
    content = read_metrics(path)
    if "protocol" not in content:
        raise ValueError(f"{path}: expected a protocol, found none: it scores point pairs, or is of another program.")
    scored = str(content.get("checkpoint") or content.get("weights") or content.get("predictions"))
    content["data"] = without_paths(str(content.get("data")))
    exported = checkpoint or weights
    # The run's folder may have been moved since; last.ckpt beside best.ckpt has different numbers.
    parts = 1 if metrics is None else 3
    if _last(scored, parts) == _last(exported, parts):
        return content
    if metrics is None:
        return None
    raise ValueError(
        f"metrics_file={path} scores {scored}, but the export is of {exported}. Give the metrics.json of that."
    )


def _last(path: str | None, parts: int) -> tuple[str, ...]:
    return Path(path).parts[-parts:] if path else ()


def recipe(run: DictConfig) -> dict[str, str]:
    """How a run was trained, in words: aspect → description, from the configuration in its checkpoint."""
    calibration = _calibration(_values(run, "calibration"))
    if "trainer" not in run:  # released weights that were calibrated
        return calibration
    data, model, trainer = (_values(run, key) for key in ("data", "model", "trainer"))
    start = "random"
    if model.get("weights"):
        parts = {"encoder": "encoder; the head from random", "head": "head; the encoder from random"}
        what = parts.get(str(model.get("init")), "encoder and head")
        start = f"{find_origin(model['weights']).name} ({what})"
    batch = f"{data.get('batch_size')} per device"
    if (accumulated := trainer.get("accumulate_grad_batches", 1)) != 1:
        batch += f", accumulated over {accumulated}"
    answers = {
        "training data": ", ".join(data["parts"]) if "parts" in data else without_paths(data_in_words(data)),
        "started from": start,
        "encoder": "frozen" if model.get("freeze_encoder") or run.get("adapter") else "trained",
        "head": "" if model.get("head", "sigmoid") == "sigmoid" else str(model["head"]),
        "adapter": _call(_values(run, "adapter")),
        "image size": f"shorter side {data.get('size')}, crop {data.get('crop') or 'none'}",
        "augmentation": augmentation_in_words(
            augmentation_options(data["augmentation"], _values(run, "augmentation") or None)
        ),
        "loss": _losses(_values(run, "loss"), str(model.get("output"))),
        "optimiser": _call(_values(run, "optimizer")),
        "schedule": _call(_values(run, "scheduler")),
        "length": _length(trainer.get("max_epochs", -1), trainer.get("max_steps", -1)),
        "batch": batch,
        "devices": _devices(trainer),
        "precision": str(trainer.get("precision")),
        "gradient clipping": str(trainer.get("gradient_clip_val") or "none"),
        "seed": str(run.get("seed")),
    }
    return {**{what: how for what, how in answers.items() if how}, **calibration}


def _losses(losses: Mapping[str, Any], output: str) -> str:
    """The losses by kind of truth; a relative network uses that of disparity for all of them."""
    unused = ("metres", "up_to_scale") if output == "relative" else ()
    used = {kind: _call(loss) for kind, loss in losses.items() if isinstance(loss, Mapping) and kind not in unused}
    return "; ".join(f"{kind.replace('_', ' ')}: {loss}" for kind, loss in used.items() if loss)


def _length(epochs: int | None, steps: int) -> str:
    parts = [counted(epochs, "epoch")] if epochs is not None and epochs != -1 else []
    if steps > 0:
        parts.append(f"{'at most ' if parts else ''}{counted(steps, 'step')}")
    return ", ".join(parts)


def _devices(trainer: Mapping[str, Any]) -> str:
    nodes, strategy = trainer.get("num_nodes", 1), _call(trainer.get("strategy", "auto"))
    on_nodes = f" on each of {nodes} nodes" if nodes != 1 else ""
    return f"{trainer.get('devices')}{on_nodes}{f' ({strategy})' if strategy != 'auto' else ''}"


def _calibration(record: Mapping[str, Any]) -> dict[str, str]:
    """The row of a recipe for what calibrate.py recorded; none if it changed nothing."""
    if record.get("kind") not in ("factor", "affine_disparity"):
        return {}
    if record["kind"] == "factor":
        what = f"depth times {record['factor']:.4f}"
    else:
        what = f"depth is 1 / ({record['scale']:.4g} · disparity + {record['shift']:.4g}) m"
    return {"calibration": f"{what}, on {record['images']} images of {record['data']}"}


def subject(cfg: DictConfig) -> dict[str, Any]:
    """Which network, or whose predictions, are scored on which data, by which version, as recorded in metrics.json."""
    scored_by = {"data": data_in_words(cfg.data), "split": cfg.get("split", "val"), "version": version()}
    if cfg.get("predictions") is not None:
        return {**scored_by, "model": None, "checkpoint": None, "weights": None, "predictions": cfg.predictions}
    return {
        **scored_by,
        "model": {key: cfg.model[key] for key in ("encoder", "output", "max_depth")},
        "size": cfg.data.size,
        "checkpoint": cfg.checkpoint,
        "weights": None if cfg.checkpoint else cfg.model.weights,
    }


def data_in_words(data: Mapping[str, Any]) -> str:
    """The class of a data set with its folder or manifest; for a mixture, the names of the validated parts."""
    if "parts" in data:
        return "Mixture: " + ", ".join(data["validate_on"] or data["parts"])
    name = str(data["dataset"]["_target_"]).rsplit(".", 1)[-1]
    return " ".join([name, *(str(data[key]) for key in ("root", "manifest") if data.get(key))])


def without_paths(words: str) -> str:
    """The words with every path reduced to its last component: the rest is private."""
    return " ".join(Path(word).name for word in words.split())


def _values(run: DictConfig, key: str) -> dict[str, Any]:
    node = run.get(key)
    values = OmegaConf.to_container(node, resolve=True, throw_on_missing=False) if node is not None else {}
    return {str(name): value for name, value in values.items()} if isinstance(values, dict) else {}


def _call(node: Any) -> str:
    """An object of the configuration written as a call; any other value as a string."""
    if not isinstance(node, Mapping):
        return str(node)
    if not node or "_target_" not in node:
        return ""
    arguments = ", ".join(f"{key}={value}" for key, value in node.items() if not key.startswith("_"))
    return f"{str(node['_target_']).rsplit('.', 1)[-1]}({arguments})"
