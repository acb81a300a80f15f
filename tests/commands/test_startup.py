"""`--help` and `--cfg job` answer about as fast as a bare Hydra program."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BARE = """
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(cfg): ...

main()
"""


def _seconds(command, cwd):
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("program", ["train.py", "evaluate.py"])
@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job", "--resolve"]])
def test_answers_at_once(program, arguments, tmp_path):
    bare = tmp_path / "bare.py"
    bare.write_text(BARE)
    # The best of several, taken in turn: the machine may be busy.
    pairs = [(_seconds([bare, *arguments], tmp_path), _seconds([program, *arguments], ROOT)) for _ in range(4)]
    assert min(ours for _, ours in pairs) < min(theirs for theirs, _ in pairs) + 0.3
