"""A run's checkpoint and the configuration stored in it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from depth_lightning.models import find_provenance
from depth_lightning.models.torch_files import END_OF_PARTS, CheckpointError, NotARunError, read_run
from depth_lightning.runs.earlier import UNSET, with_unset
from depth_lightning.runs.options import PATH, TRUST, check
from depth_lightning.runs.overrides import REFERENCE, is_below, typed
from depth_lightning.runs.trust import calls_resolver, refuse_resolvers, refuse_strangers
from depth_lightning.settings import SettingError
from depth_lightning.version import version

log = logging.getLogger(__name__)

FROM_RUN = ("model", "adapter", "camera", "data", "protocol", "metrics", "seed")
"""The parts of the configuration that decide what a checkpoint predicts and how its predictions are scored."""
NOT_BUILT = ("callbacks", "logger")
"""The parts that are never read from a checkpoint; those of a sweep refer to its folder by a resolver."""


def read_run_checkpoint(path: str | Path) -> tuple[DictConfig, dict[str, Any]]:
    """The configuration of the run that wrote the checkpoint, and the module's state dict, for `load_run_state`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is damaged, in parts, or not a checkpoint of train.py.
    """
    path = Path(path).expanduser()
    try:
        content = read_run(path)
    except FileNotFoundError as error:
        hint = f" It is a folder; did you mean {path / 'checkpoints' / 'best.ckpt'}?" if path.is_dir() else ""
        raise FileNotFoundError(f"checkpoint={error}{hint}") from error
    except CheckpointError as error:
        other = isinstance(error, NotARunError)
        hint = f" For released weights, use model=… model.weights={path}." if other else ""
        raise CheckpointError(f"checkpoint={error}{hint}") from error
    state = content["state_dict"]
    if not (isinstance(state, Mapping) and all(isinstance(key, str) for key in state)):
        raise CheckpointError(
            f"checkpoint={path} is no checkpoint of train.py: its state_dict holds no weights by name."
        )
    return _recorded_config(content["config"], path), dict(state)


def run_config(path: Path) -> DictConfig:
    """The configuration of the run that wrote a checkpoint, which may be in parts; raises as `read_run_checkpoint`."""
    if not path.is_dir():
        return read_run_checkpoint(path)[0]
    return _recorded_config(read_run(path / END_OF_PARTS, ("config",))["config"], path)


def _recorded_config(config: Any, path: Path) -> DictConfig:
    """A checkpoint's configuration, whose interpolations may refer only to its own keys."""
    try:
        parts = {part: value for part, value in config.items() if part not in NOT_BUILT}
        refuse_resolvers(parts, f"checkpoint={path}")
        if "data" in parts:
            parts["data"] = with_unset(parts["data"])
        parts.setdefault("adapter", None)
        return OmegaConf.create(parts)
    except (AttributeError, RecursionError, OmegaConfBaseException) as error:
        raise ValueError(f"checkpoint={path}: its configuration is not one of train.py ({error!r}).") from error


def chosen_network(cfg: DictConfig, overrides: Sequence[str], command: str) -> tuple[DictConfig, dict[str, Any] | None]:
    """The configuration of `cfg.checkpoint` with the typed overrides on top, and its state dict; or `cfg` and None.

    Args:
        cfg: composed from the command's file.
        overrides: as typed.
        command: the verb of the command, such as "evaluate".

    Raises:
        SettingError: see `options.check`.
        ValueError: neither a checkpoint nor weights were typed.
    """
    if cfg.checkpoint is not None:
        PATH("checkpoint", cfg.checkpoint)
        TRUST("trust", cfg.trust)
        saved, state = read_run_checkpoint(cfg.checkpoint)
        chosen, keys = overlay(saved, cfg, overrides), typed(overrides)

        def is_typed(key: str) -> bool:
            return key.split(".")[0] not in FROM_RUN or is_below(key, keys)

        check(chosen, command, is_typed)
        return chosen, state
    check(cfg, command)
    if typed(overrides).get("model.weights") is None:
        raise ValueError(
            f"Nothing to {command}: give checkpoint=…/best.ckpt of a run, "
            "or released weights with model=vits model.weights=…"
        )
    return _as_the_file_says(cfg, overrides), None


def _as_the_file_says(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """`cfg` with the max_depth, head and size recorded beside or in the name of `model.weights`, unless typed."""
    known = find_provenance(Path(str(cfg.model.weights)).expanduser())
    if known is None:
        return cfg
    keys = typed(overrides)
    cfg = cfg.copy()
    for key, value in {"model.max_depth": known.max_depth, "model.head": known.head, "data.size": known.size}.items():
        if value is not None and key not in keys and OmegaConf.select(cfg, key) not in (None, value):
            OmegaConf.update(cfg, key, value)
            log.info(f"{key}={value}, as {known.source} says.")
    if known.focal_px is not None and "camera.focal_px" not in keys:
        for key in ("model.focal_px", "camera.focal_px"):
            OmegaConf.update(cfg, key, known.focal_px, force_add=True)
        log.info(f"camera=canonical camera.focal_px={known.focal_px:g}, as {known.source} says.")
    return cfg


def describe(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as stored in a checkpoint, with the version: plain values, references to other keys unresolved.

    So `data.root=…` typed at evaluation reaches everything that refers to it. Resolvers, such as those of environment
    variables, are resolved: another shell may give other values, and nothing resolves them from a file. So are, in the
    parts that are read from a checkpoint, references to the others, such as that to `encoder.name`.
    """

    def walk(raw: Any, node: Any) -> Any:
        if isinstance(raw, dict):
            return {
                key: walk(value, node[key] if isinstance(value, dict | str) else None) for key, value in raw.items()
            }
        return node if isinstance(raw, str) and (calls_resolver(raw) or _leaves_the_run(raw)) else raw

    raw = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    values = {part: value if part in NOT_BUILT else walk({part: value}, cfg)[part] for part, value in raw.items()}
    return {**values, "version": version()}


def _leaves_the_run(text: str) -> bool:
    return any(not dots and key.split(".")[0] not in FROM_RUN for dots, key in REFERENCE.findall(text))


def keep_settled(cfg: DictConfig, checkpoint: Path) -> None:
    """Write into the configuration what its run had settled when it began, unless something else was typed.

    Args:
        cfg: of a run that resumes.
        checkpoint: of the run, perhaps in parts.
    """
    paths = ("data", *(f"data.parts.{name}" for name in cfg.data.get("parts") or ()))
    keys = [f"{path}.{key}" for path in paths for key in UNSET if key in OmegaConf.select(cfg, path)]
    open_keys = [key for key in keys if OmegaConf.select(cfg, key) in (None, "auto")]
    open_keys += ["trainer.precision"] if cfg.trainer.get("precision") == "auto" else []
    if not open_keys:
        return
    saved = run_config(checkpoint)
    for key in open_keys:
        if (value := OmegaConf.select(saved, key)) is not None:
            OmegaConf.update(cfg, key, value)


def overlay(saved: DictConfig, composed: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of the run that wrote the checkpoint, with a command's overrides on top.

    `FROM_RUN` comes from the run; a group or value among the overrides (as typed) comes from `composed` instead. With
    another data set, the run's size and range of values are kept, since they belong to the network.

    Raises:
        UntrustedConfigError: the checkpoint's configuration names something that it may not choose.
        SettingError: the typed canonical focal length is not the checkpoint's.
        ValueError: the typed encoder is not the checkpoint's.
    """
    merged = composed.copy()
    raw = cast(Mapping[str, Any], OmegaConf.to_container(composed, resolve=False))
    keys: list[str] = []
    with open_dict(merged):
        for part in FROM_RUN:
            merged[part] = saved.get(part)
        if "camera" in composed:  # predict has further keys there, of the photos' camera
            of_run = saved.get("camera") or {}
            own = {key: of_run.get(key) for key in ("focal_px", "default_fov_deg")}
            merged.camera = OmegaConf.merge(composed.camera, own)
        for key, written in typed(overrides).items():
            part, *path = (key if key != "encoder" else "model.encoder").split(".")
            if part not in FROM_RUN:
                continue
            keys.append(".".join([part, *path]))
            if written is None:  # deleted, like `~data.on_error`; a complete part cannot be deleted
                if path:
                    OmegaConf.select(merged, ".".join([part, *path[:-1]])).pop(path[-1], None)
                continue
            if part not in raw:  # an empty list was typed
                raise SettingError(part, f"is missing. Leave out {part}={written} to take the checkpoint's.")
            value: Any = raw[part]
            for name in path:
                value = value[name]
            if part == "data" and not path:
                value = {**value, "size": saved.data.size}
                if "image_range" in value and value["image_range"] is None:
                    value["image_range"] = saved.data.get("image_range")
            OmegaConf.update(merged, ".".join([part, *path]), value, merge=False, force_add=True)
    refuse_strangers(merged, FROM_RUN, f"checkpoint={composed.checkpoint}", keys, composed.trust or ())
    focal_px, own_focal = (OmegaConf.select(each, "camera.focal_px") for each in (merged, saved))
    if focal_px != own_focal:
        raise SettingError(
            "camera.focal_px",
            f"belongs to the checkpoint's network, {own_focal if own_focal else 'camera=none'}; found {focal_px}. "
            "Leave it out.",
        )
    if merged.model.encoder != saved.model.encoder:
        raise ValueError(
            f"The checkpoint holds a {saved.model.encoder}, but {merged.model.encoder} was requested. "
            "Leave out model= and encoder=: the checkpoint determines its network."
        )
    return merged
