"""Runs a command as a person does, `python -m depth_lightning …`, but within this process."""

import contextlib
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import NamedTuple

from depth_lightning.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60
TRACES = re.compile("Traceback|Error executing job|Error in call to target|stack trace")
"""What Python and Hydra print of an error that no one has put into words."""


class Hang(BaseException):
    """The command has no end. No `except Exception` holds it."""


class Outcome(NamedTuple):
    status: int
    printed: str

    @property
    def message(self):
        """The last thing said before the end."""
        lines = [line for line in self.printed.splitlines() if line.strip() and "The traceback is in" not in line]
        return lines[-1] if lines else ""


def _hang(number, frame):
    raise Hang


def call(*words, cwd, limit_s=LIMIT_S):
    """Run a command in the folder `cwd`.

    Raises:
        Hang: it is not done within the limit.
        Exception: what the command lets through.
    """
    printed, before = io.StringIO(), {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    signal.signal(signal.SIGALRM, _hang)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd))
        stack.enter_context(contextlib.redirect_stdout(printed))
        stack.enter_context(contextlib.redirect_stderr(printed))
        argv, sys.argv = sys.argv, [str(ROOT / "depth_lightning/__main__.py"), *map(str, words)]
        environment = dict(os.environ)
        signal.alarm(limit_s)
        try:
            main()
            status = 0
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        finally:
            signal.alarm(0)
            sys.argv = argv
            os.environ.clear()
            os.environ.update(environment)
            for number, handler in before.items():
                signal.signal(number, handler)
    return Outcome(status, printed.getvalue())


def listing(folder):
    """Path → time of change of everything below a folder, to see what a command has written there."""
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
