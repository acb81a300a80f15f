"""Ctrl-C (SIGINT): where it must not take effect in the middle, and how a command ends after it."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

EXIT_INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as of shells: 128 + SIGINT."""
LOST_S: Final = 1.0
"""Seconds after which an interrupt that nothing handles counts as lost."""


def leave_at_once(message: str = "") -> None:
    """From now on, end at Ctrl-C without cleaning up: for the time before and after the work.

    A KeyboardInterrupt would be lost within the import of a library, or show its traceback.
    """

    def leave(number: int, frame: Any) -> NoReturn:
        print(message, file=sys.stderr, flush=True)
        os._exit(EXIT_INTERRUPTED)

    _handle(leave)


def raise_interrupts() -> None:
    """From now on, raise KeyboardInterrupt at Ctrl-C, and once more if it got lost.

    Python ignores what is raised within a finaliser, whenever that runs.
    """
    checking, main = False, threading.main_thread().ident or 0

    def interrupt(number: int, frame: Any) -> None:
        nonlocal checking
        if checking and is_interrupt(sys.exc_info()[1]):  # it is being handled
            checking = False
            return
        timer = threading.Timer(LOST_S, check)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    def check() -> None:
        nonlocal checking
        if signal.getsignal(signal.SIGINT) is interrupt:
            checking = True
            if hasattr(signal, "pthread_kill"):  # ends a system call, too; not on Windows
                signal.pthread_kill(main, signal.SIGINT)
            else:
                _thread.interrupt_main()

    _handle(interrupt)


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is a KeyboardInterrupt, or a library's answer to one."""
    passed: set[int] = set()  # two errors may each be the other's cause
    while error is not None and id(error) not in passed:
        if isinstance(error, KeyboardInterrupt):
            return True
        passed.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def _handle(handler: Any) -> None:
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as in a shell's background
    if threading.current_thread() is threading.main_thread() and not ignored:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C take effect only after the block; processes that are started in it are never interrupted.

    Python ignores what is raised while it forks, and a process that is interrupted while it starts shows a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    # A started process inherits the mask; in this one, the signal may reach another thread.
    masks = hasattr(signal, "pthread_sigmask")  # not on Windows
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masks else set()
    try:
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if held and callable(before):
        before(signal.SIGINT, None)
