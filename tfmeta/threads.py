"""Thread settings: many small tasks at once beat many threads per operation."""

from __future__ import annotations

import os

import tensorflow as tf


def configure_threads(n_threads: int | None = None) -> None:
    """Makes TensorFlow run one operation per core rather than all cores on one operation.

    Call it before anything else uses TensorFlow: it fixes its threads at the first operation.
    The command line does it by itself. The number of threads per operation also changes the last
    bits of results, so that equal settings are needed for equal numbers.

    Args:
        n_threads: Operations that run at once; defaults to the number of cores.

    Raises:
        RuntimeError: If TensorFlow has already started.
    """
    try:
        tf.config.threading.set_inter_op_parallelism_threads(n_threads or os.cpu_count() or 1)
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError as error:
        raise RuntimeError(
            "TensorFlow fixes its threads at its first operation: call "
            "tfmeta.configure_threads() before building models or data."
        ) from error


def tasks_at_once() -> int:
    """Tasks to have in flight: one for each thread, and one more, so that none waits.

    Each costs the memory of its activations.
    """
    return 1 + (tf.config.threading.get_inter_op_parallelism_threads() or os.cpu_count() or 1)
