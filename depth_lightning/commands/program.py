"""What makes an entry point a Hydra program. Nothing here imports torch, so that --help and --cfg answer at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hydra
from hydra.core.config_store import ConfigStore

# There is one store, which nothing changes once all is imported. Hydra would copy it, with all that the plugins keep
# there, to compose a configuration, and three times for every group that --help lists.
ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]


def program(config_name: str, conf: Path = Path("conf")) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Decorate main(cfg) to be run with `conf`/<config_name>.yaml and the overrides typed.

    Args:
        config_name: the command's own configuration.
        conf: absolute, or relative to the folder of main's file.
    """
    decorator = hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)
    return cast(Callable[[Callable[..., Any]], Callable[[], None]], decorator)
