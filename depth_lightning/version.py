"""The version of this project, with the commit."""

import json
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import depth_lightning


@cache
def version() -> str:
    """The version, and the commit of a clone or of an installation from one: `0.1.0 (a1b2c3d4e5f6)`.

    The commit of a clone with other changes ends in `-dirty`.
    """
    source = Path(depth_lightning.__file__).parents[1]
    # Only a clone has .git there, not an environment inside another repository.
    commit = _of_clone(source) if (source / ".git").exists() else _of_installation(source)
    return depth_lightning.__version__ + (f" ({commit})" if commit else "")


def _of_clone(folder: Path) -> str:
    try:
        words = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # git is not installed
        return ""


def _of_installation(folder: Path) -> str:
    """The commit that `pip install git+…` recorded."""
    try:
        installed = distribution("depth-lightning")
    except PackageNotFoundError:
        return ""
    origin = installed.read_text("direct_url.json") if Path(str(installed.locate_file(""))) == folder else None
    return str(json.loads(origin or "{}").get("vcs_info", {}).get("commit_id", ""))[:12]
