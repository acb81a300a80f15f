"""What makes an entry point a Hydra program. Nothing here imports torch, so that --help and --cfg answer at once."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra
from hydra._internal.hydra import Hydra

# --help lists all groups twice, and Hydra copies its whole store of configurations for every group each time.
Hydra.list_all_config_groups = functools.cache(Hydra.list_all_config_groups)  # type: ignore[method-assign]


def program(config_name: str, conf: Path = Path("conf")) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Decorate main(cfg) to be run with `conf`/<config_name>.yaml and the overrides typed.

    Args:
        config_name: the command's own configuration.
        conf: absolute, or relative to the folder of main's file.
    """
    decorator = hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)
    return cast(Callable[[Callable[..., Any]], Callable[[], None]], decorator)
