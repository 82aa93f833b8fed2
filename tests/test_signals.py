"""Signals end a process with their exit code, never with a traceback, and may wait."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from tfmeta import signals
from tfmeta.signals import Stopped, deferred, raised


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_raises_and_the_handlers_come_back(number: int) -> None:
    before = [signal.getsignal(n) for n in signals.SIGNALS]
    with pytest.raises(Stopped) as stop, raised():
        os.kill(os.getpid(), number)
    assert (stop.value.number, stop.value.exit_code) == (number, 128 + number)
    assert [signal.getsignal(n) for n in signals.SIGNALS] == before


def test_a_signal_waits_only_while_something_is_unsaved_and_only_once() -> None:
    with raised():
        with pytest.raises(Stopped), deferred():
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), deferred() as deferral:
            deferral.unsaved = True
            os.kill(os.getpid(), signal.SIGTERM)
            assert deferral.number == signal.SIGTERM
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_signal_that_is_ignored_or_handled_by_others_is_left_alone(handler: object) -> None:
    before = signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    try:
        with raised(), deferred() as deferral:
            deferral.unsaved = True
            os.kill(os.getpid(), signal.SIGTERM)
            assert deferral.number is None
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_change_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with raised():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


# Sends a signal as soon as a module is looked for.
PROGRAM = """
import os, sys
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Sender())
sys.argv = ["tfmeta", "adapt", "maml_sinusoid", "--support", "x.csv", "--output", "y"]
from tfmeta.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", signals.SIGNALS)
@pytest.mark.parametrize("module", ["typer", "tensorflow"])
def test_a_signal_while_modules_are_imported_shows_no_traceback(module: str, number: int) -> None:
    program = PROGRAM.format(module=module, number=int(number))
    child = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100
    )
    assert child.returncode == 128 + number
    assert child.stdout == ""
    assert child.stderr == f"tfmeta: {signals.text_of(number)}.\n"
