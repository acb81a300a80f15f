"""How to type the program's commands, for messages that say what to do next."""

import sys
from pathlib import Path
from typing import Final

NAME: Final = "depth-lightning"
"""Of the console script."""


def command_line(command: str) -> str:
    """A command as it is typed here: by the console script's name if the program was started by it.

    In a clone that is not installed, only `python -m depth_lightning` works.

    Args:
        command: its name, perhaps with options.
    """
    return f"{NAME if Path(sys.argv[0]).stem == NAME else 'python -m depth_lightning'} {command}"
