"""Ends a process cleanly when it is interrupted (Ctrl-C), terminated or hung up.

The signals are SIGINT, SIGTERM and, except on Windows, SIGHUP. There are three ways to handle them:

    exit_at_once()    while modules are imported, which an exception would leave half imported
    raised()          while a command runs: `Stopped` passes, and all that is held is released
    deferred()        while there is something to save first

A signal that is ignored (as under `nohup`), or that the user's own code handles, is left alone.
Signals reach only the main thread of a process; in another thread nothing is changed.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stopped(KeyboardInterrupt):
    """The process was told to stop.

    Args:
        number: int. The signal. Defaults to SIGINT.
        message: str. What is saved, and how to go on. Defaults to `""`.
    """

    def __init__(self, number: int = signal.SIGINT, message: str = "") -> None:
        super().__init__(message)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code of a process that this signal ends, as shells count it."""
        return 128 + self.number


def number_of(interrupt: KeyboardInterrupt) -> int:
    """Returns the signal of an interrupt; Python raises some without saying that it is SIGINT.

    Args:
        interrupt: KeyboardInterrupt. The exception, `Stopped` or another one.
    """
    return interrupt.number if isinstance(interrupt, Stopped) else signal.SIGINT


def text_of(number: int) -> str:
    """Describes a signal in words.

    Args:
        number: int. The signal.
    """
    return "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"


@contextmanager
def exit_at_once() -> Iterator[None]:
    """Lets a signal end the process with a line on stderr, its exit code, and nothing else."""
    try:
        # Whoever redirects stderr meanwhile does not hide the line.
        stderr = os.dup(2)
    except OSError:
        stderr = -1  # A process may have none.

    def leave(number: int, frame: Any) -> None:
        _write(stderr, f"tfmeta: {text_of(number)}.\n")
        os._exit(128 + number)

    try:
        with _handled(leave):
            yield
    finally:
        if stderr >= 0:
            os.close(stderr)


@contextmanager
def raised() -> Iterator[None]:
    """Lets a signal raise `Stopped`."""
    with _handled(_raise):
        yield


class _Deferral:
    """A signal that waits until something is saved.

    Attributes:
        unsaved: bool. Whether there is something to save. Until then, a signal raises `Stopped`.
        number: int or None. The signal that came.
    """

    def __init__(self) -> None:
        self.unsaved = False
        self.number: int | None = None

    def handle(self, number: int, frame: Any) -> None:
        if not self.unsaved or self.number is not None:
            raise Stopped(number)
        self.number = number
        _write(2, f"tfmeta: {text_of(number)}; saving first. Once more to stop at once.\n")


@contextmanager
def deferred() -> Iterator[_Deferral]:
    """Keeps a signal until it is asked for; a second one raises `Stopped` at once.

    Yields:
        An object with `number`, the signal that came, or None. As long as its attribute `unsaved`
        is False, a signal raises `Stopped` at once.
    """
    deferral = _Deferral()
    with _handled(deferral.handle):
        yield deferral


def _write(descriptor: int, text: str) -> None:
    """Writes without a buffer, which the code that was interrupted may be using."""
    with suppress(OSError):
        os.write(descriptor, text.encode())


def _raise(number: int, frame: Any) -> None:
    raise Stopped(number)


@contextmanager
def _handled(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handles the signals that would end the process, or that this module handles already."""
    earlier: dict[int, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if _ends_the_process(signal.getsignal(number)):
                    earlier[number] = signal.signal(number, handler)
        yield
    finally:
        for number, before in earlier.items():
            signal.signal(number, before)


def _ends_the_process(handler: Any) -> bool:
    is_default = handler in (signal.SIG_DFL, signal.default_int_handler)
    return is_default or getattr(handler, "__module__", None) == __name__
