"""`--help` and `--cfg job` answer about as fast as a bare Hydra program."""

import resource
import subprocess
import sys
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
    """Of processor time: both programs wait for nothing, and the machine may be busy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], cwd=cwd, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.timed
@pytest.mark.parametrize("program", ["train.py", "evaluate.py", "predict.py", "export.py"])
@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job", "--resolve"]])
def test_answers_at_once(program, arguments, tmp_path):
    bare = tmp_path / "bare.py"
    bare.write_text(BARE)
    # The best of several, taken in turn.
    pairs = [(_seconds([bare, *arguments], tmp_path), _seconds([program, *arguments], ROOT)) for _ in range(4)]
    assert min(ours for _, ours in pairs) < min(theirs for theirs, _ in pairs) + 0.3
