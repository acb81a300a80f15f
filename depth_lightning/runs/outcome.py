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
    return mark.read_text(encoding="utf-8").strip() if mark.is_file() else None


def pruned_at(run: Path) -> int | None:
    """The step at which the run was pruned; None if it was not."""
    mark = run / PRUNED
    return int(json.loads(mark.read_bytes())["step"]) if mark.is_file() else None
