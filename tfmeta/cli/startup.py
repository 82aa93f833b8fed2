"""Starts TensorFlow, which commands put off until they need it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


def start_tensorflow() -> None:
    """Imports TensorFlow and tfmeta's learners, and sets the threads.

    TensorFlow's libraries log while they load; that is shown only if they fail.
    """
    from tfmeta import signals
    from tfmeta.quiet import quiet_tensorflow

    with signals.exit_at_once(), quiet_tensorflow(), _without_garbage_collection():
        from tfmeta import learners, threads  # noqa: F401
    threads.configure_threads()


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Spares Python's garbage collector what is imported, during the import and later.

    An import leaves no garbage, but makes a million objects, through which the collector would go
    again and again.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
