"""Runs a command as a Hydra program. Nothing here imports torch, so that --help and --cfg answer at once."""

import copyreg
import io
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from depth_lightning.interrupts import EXIT_INTERRUPTED, leave_at_once
from depth_lightning.settings import SettingError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PACKAGE = Path(__file__).resolve().parents[1]
CONF = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir())
"""The configuration: in the package as installed from a wheel, and beside it in a clone."""
EXTRAS: Final = {
    "logger=wandb": ("wandb", "wandb"),
    "logger=tensorboard": ("tensorboard", "tensorboard"),
    "hparams_search=optuna": ("sweep", "hydra_plugins.hydra_optuna_sweeper"),
    "hydra/launcher=joblib": ("sweep", "hydra_plugins.hydra_joblib_launcher"),
    "hydra/launcher=slurm": ("sweep", "hydra_plugins.hydra_submitit_launcher"),
}
"""An option of other packages → the extra that installs it, and its module."""
FULL_ERROR: Final = "HYDRA_FULL_ERROR"
"""The environment variable with which Hydra raises errors instead of printing them."""
UNSTARTED: Final = "Interrupted before the work began. To do it, repeat the command."


def print_anywhere() -> None:
    """Escape what the terminal cannot show, such as arrows on Windows or names that are not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def program(command: str, typed: str | None = None) -> None:
    """Run `depth_lightning.commands.<command>` with conf/<command>.yaml and the overrides typed.

    Args:
        command: a module's name.
        typed: the first word on the command line, if it is the command's name.
    """
    leave_at_once(UNSTARTED)
    print_anywhere()
    import hydra
    from hydra.core.config_store import ConfigStore

    from depth_lightning.runs.overrides import as_typed

    # Hydra copies the store, with everything that plugins keep there, to compose a configuration, and three times for
    # every group that --help lists. There is only one store, which does not change after the imports.
    copyreg.pickle(ConfigStore, lambda store: (ConfigStore.instance, ()))
    words = list(sys.argv)
    reports = os.environ.get(FULL_ERROR)
    composing = reports != "1"

    def work(cfg: "DictConfig") -> Any:
        nonlocal composing
        if composing:
            composing = False
            _set(FULL_ERROR, reports)
        leave_at_once(UNSTARTED)
        sys.argv = list(words)  # Lightning starts the other DDP processes with it
        return import_module(f"depth_lightning.commands.{command}").run(cfg)

    try:
        options = as_typed(words[1:] if typed is None else words[2:])
        options.sort(key=lambda word: word not in ("-m", "--multirun"))  # Hydra takes no overrides on both sides of it
        sys.argv = [words[0], *options]
    except SettingError as error:
        sys.exit(str(error))
    for word in words[1:]:
        extra, module = EXTRAS.get(word, ("", "sys"))
        if find_spec(module) is None:
            sys.exit(f"{word} needs an extra that is not installed: pip install 'depth-lightning[{extra}]'")
        group, _, option = word.partition("=")
        if option == "null" and (CONF / group).is_dir():
            sys.exit(f"{group}=null: a group has no empty option. Leave it out, or delete it with ~{group}")
    _set(FULL_ERROR, "1")  # until the work begins, Hydra raises its errors, and they are put into words below
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(work)()
    except Exception as error:
        if not composing:
            raise
        from depth_lightning.runs.composing import composition_error

        sys.exit(composition_error(error, CONF, command, sys.argv[1:]))
    except KeyboardInterrupt:  # such as between the jobs of a sweep
        print("Interrupted. To go on, repeat the command.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        _set(FULL_ERROR, reports)


def _set(name: str, value: str | None) -> None:
    """Set an environment variable, or remove it."""
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
