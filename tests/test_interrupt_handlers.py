"""Ctrl-C within one process: neither lost nor in the middle of what must be whole."""

import os
import signal
import subprocess
import sys
import time

import pytest

from depth_lightning.interrupts import interrupts_held, is_interrupt, leave_at_once, raise_interrupts


@pytest.fixture(autouse=True)
def handler():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_a_finaliser_swallowed_is_raised_again():
    class Finalised:
        def __del__(self):
            interrupt()

    raise_interrupts()
    del (finalised := [Finalised()])[0]
    assert finalised == []
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert time.monotonic() - started < 3


def test_an_interrupt_that_is_being_handled_is_not_raised_again():
    raise_interrupts()
    done = []
    with pytest.raises(KeyboardInterrupt):
        try:
            interrupt()
        finally:
            time.sleep(1.5)
            done.append("tidied up")
    assert done == ["tidied up"]


def test_an_interrupt_waits_until_the_end_of_what_must_be_whole():
    raise_interrupts()
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        interrupt()
        done.append("all of it")
    assert done == ["all of it"]


def test_what_is_started_meanwhile_is_not_interrupted():
    with interrupts_held():
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5); print('whole')"], stdout=-1)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == b"whole\n"


def test_before_the_work_the_process_ends_at_once():
    if (child := os.fork()) == 0:
        leave_at_once("Interrupted.")
        interrupt()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for listen in (raise_interrupts, leave_at_once):
        listen()
        interrupt()
    with interrupts_held():
        interrupt()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_library_s_answer_to_an_interrupt_is_one():
    def answered(error):
        try:
            try:
                raise error
            except BaseException:
                sys.exit(1)
        except SystemExit as end:
            return end

    assert is_interrupt(answered(KeyboardInterrupt())) and not is_interrupt(answered(ValueError()))


def test_errors_in_a_circle_are_no_interrupt():
    """An error that is raised again out of its wrapper, as `objects.build` does, comes before itself."""
    inner, wrapper = FileNotFoundError("no folder"), RuntimeError("in a call")
    wrapper.__cause__, inner.__context__ = inner, wrapper
    assert not is_interrupt(inner)
    wrapper.__cause__ = KeyboardInterrupt()
    assert is_interrupt(inner)
