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
        tf.config.threading.set_inter_op_parallelism_threads(n_threads or n_cores())
        tf.config.threading.set_intra_op_parallelism_threads(1)
    except RuntimeError as error:
        raise RuntimeError(
            "TensorFlow fixes its threads at its first operation: call "
            "tfmeta.configure_threads() before building models or data."
        ) from error


def only_cpu() -> bool:
    """Whether TensorFlow sees no device but CPUs."""
    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def tasks_at_once() -> int:
    """Tasks to have in flight. Each costs the memory of its activations.

    On a CPU one for each thread, and one more, so that none waits; on other devices a few.
    """
    if not only_cpu():
        return 4
    return 1 + (tf.config.threading.get_inter_op_parallelism_threads() or n_cores())


def n_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
