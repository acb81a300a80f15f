"""The signals that ask a run to stop, and how a stopped run exits."""

import signal
import threading
from typing import Any

EXIT_SAVED = 75
"""The exit status after a signal, when the same command continues the work: EX_TEMPFAIL of sysexits.h."""


STOPPING = (signal.SIGTERM, *((signal.SIGUSR1,) if hasattr(signal, "SIGUSR1") else ()))
"""Windows has no SIGUSR1."""


class Stopped(SystemExit):
    """The run was asked to stop, and has been saved."""


class StopSignals:
    """Records SIGTERM and SIGUSR1, so that the run stops at the next safe point."""

    received: signal.Signals | None = None

    def listen(self) -> None:
        """Replace the current signal handlers; only possible in the main thread."""
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.received = signal.Signals(number)
