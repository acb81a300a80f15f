"""Runs a command as a Hydra program. Nothing here imports torch, so that --help and --cfg answer at once."""

import copyreg
import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from depth_lightning.interrupts import EXIT_INTERRUPTED, leave_at_once
from depth_lightning.settings import SettingError

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).resolve().parents[2] / "conf"
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
        sys.argv = [words[0], *as_typed(words[1:] if typed is None else words[2:])]
    except SettingError as error:
        sys.exit(str(error))
    _set(FULL_ERROR, "1")  # until the work begins, Hydra raises its errors, and they are put into words below
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(work)()
    except Exception as error:
        if not composing:
            raise
        from depth_lightning.runs.composing import composition_error

        sys.exit(composition_error(error, CONF, command, sys.argv[1:]))
    except KeyboardInterrupt:
        print("Interrupted between the jobs of the sweep.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    finally:
        _set(FULL_ERROR, reports)


def _set(name: str, value: str | None) -> None:
    """Set an environment variable, or remove it."""
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
