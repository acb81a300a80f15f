"""The signals that ask a run to stop, and how it ends when it has."""

import signal
import threading
from typing import Any

EXIT_SAVED = 75
"""The exit status of what a signal stopped and the same command goes on with: EX_TEMPFAIL of sysexits.h."""


class Stopped(SystemExit):
    """The run was asked to stop, and is saved."""


class StopSignals:
    """Notes SIGTERM and SIGUSR1, for the run to stop where it can."""

    received: signal.Signals | None = None

    def listen(self) -> None:
        """Take the signals over from whoever has them; the main thread alone can."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)
