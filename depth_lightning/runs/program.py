"""Runs a command as a Hydra program. Nothing here imports torch, so that --help and --cfg answer at once."""

import copyreg
import io
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from depth_lightning.runs.overrides import as_typed
from depth_lightning.settings import SettingError

CONF = Path(__file__).resolve().parents[2] / "conf"

# Hydra copies the store, with everything that plugins keep there, to compose a configuration, and three times for every
# group that --help lists. There is only one store, and it does not change after the imports: its copy is itself.
copyreg.pickle(ConfigStore, lambda store: (ConfigStore.instance, ()))


def program(command: str, typed: str | None = None) -> None:
    """Run `depth_lightning.commands.<command>` with conf/<command>.yaml and the overrides typed.

    Args:
        command: a module's name.
        typed: the first word on the command line, if it is the command's name.
    """
    words = list(sys.argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape what the terminal, or a file's name, cannot encode
            stream.reconfigure(errors="backslashreplace")

    def work(cfg: DictConfig) -> Any:
        sys.argv = list(words)  # Lightning starts the other DDP processes with it
        return import_module(f"depth_lightning.commands.{command}").run(cfg)

    try:
        sys.argv = [words[0], *as_typed(words[1:] if typed is None else words[2:])]
    except SettingError as error:
        sys.exit(str(error))
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(work)()
