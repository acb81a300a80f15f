"""How a run of a sweep ended, as its folder tells. Read where no torch is imported."""

import json
from pathlib import Path
from typing import Final

FAILED: Final = "failed.txt"
"""In the folder of a job that failed: why."""
PRUNED: Final = "pruned.json"
"""In the folder of a run that was ended early: at which step, its best value, and the median of the others."""


def why_failed(run: Path) -> str | None:
    """Why the job failed; None if it did not."""
    mark = run / FAILED
    return mark.read_text(encoding="utf-8").strip() if mark.is_file() else None


def pruned_at(run: Path) -> int | None:
    """The step at which the run was ended early; None if it was not."""
    mark = run / PRUNED
    return int(json.loads(mark.read_bytes())["step"]) if mark.is_file() else None
