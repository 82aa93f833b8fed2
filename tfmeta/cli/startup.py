"""Starts TensorFlow, which commands put off until they need it."""

from __future__ import annotations


def start_tensorflow() -> None:
    """Imports TensorFlow and tfmeta's learners, and sets the threads.

    TensorFlow's libraries log while they load; that is shown only if they fail.
    """
    from tfmeta import signals
    from tfmeta.quiet import quiet_tensorflow

    with signals.exit_at_once(), quiet_tensorflow():
        from tfmeta import learners, threads  # noqa: F401
    threads.configure_threads()
