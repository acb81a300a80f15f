"""How a run of a sweep ended, according to its folder. This module does not import torch."""

import json
from pathlib import Path
from typing import Final

FAILED: Final = "failed.txt"
"""File in the folder of a failed job, with the reason."""
PRUNED: Final = "pruned.json"
"""File in the folder of a pruned run: at which step, its best value, and the median of the others."""


def why_failed(run: Path) -> str | None:
    """Why the job failed; None if it did not."""
    mark = run / FAILED
    return mark.read_text(encoding="utf-8", errors="replace").strip() if mark.is_file() else None


def pruned_at(run: Path) -> int | None:
    """The step at which the run was pruned; None if it was not.

    Raises:
        ValueError: the file that says so is damaged.
    """
    mark = run / PRUNED
    if not mark.is_file():
        return None
    try:
        return int(json.loads(mark.read_bytes())["step"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{mark}: expected the step at which a run was pruned, found something else.") from error
