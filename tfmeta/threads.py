"""Thread settings: few-shot tasks are small, so each operation runs on one core."""

from __future__ import annotations

import os

import tensorflow as tf


def configure_threads(n_threads: int | None = None) -> None:
    """Makes TensorFlow run one operation per core instead of all cores on one operation.

    Call it before anything else uses TensorFlow, which fixes its threads at the first operation.
    The command line calls it for you. The number of threads per operation also changes the last
    bits of results: equal numbers need equal settings.

    Args:
        n_threads: int or None. The number of operations that run at once. Defaults to None: the
            number of cores.

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
    """Returns whether TensorFlow sees no device but CPUs.

    Returns:
        bool. True if all devices are CPUs.
    """
    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def tasks_in_parallel() -> int:
    """Returns how many tasks to process at once. Each needs memory for its activations.

    Returns:
        int. On CPUs, one more than there are threads, so that no thread waits; on other devices, 4.
    """
    if not only_cpu():
        return 4
    return 1 + (tf.config.threading.get_inter_op_parallelism_threads() or n_cores())


def n_cores() -> int:
    """Returns the number of cores that this process may use.

    Returns:
        int. The number of cores, at least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
