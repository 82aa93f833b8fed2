"""Servables that the tests share, to read only."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A function: the export of a model of `family`, made once per process. Do not write to it."""
    import family

    folder = tmp_path_factory.mktemp("exported")
    return functools.cache(lambda name: family.exported(name, folder))


@pytest.fixture(scope="session")
def servable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `small`, with versions 2 and 10 and what a server passes over."""
    folder = tmp_path_factory.mktemp("models") / "small"
    export_small(folder / "2", "old ")
    export_small(folder / "10", "hello ")
    (folder / ".tmp-11").mkdir()
    return folder


def export_small(folder: Path, greeting: str) -> None:
    """Export a model with the data types, and the faults, that a server meets."""
    import keras
    import tensorflow as tf

    def mixed(x: Any, count: Any, name: Any) -> dict[str, Any]:
        return {
            "total": tf.reduce_sum(x * 0.5, axis=1),
            "next": count + 1,
            "greeting": greeting + name,
            "large": x > 1,
        }

    def positive(x: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_positive(x, "x must be positive")]):
            return {"root": tf.sqrt(x)}

    def short(name: Any) -> dict[str, Any]:
        is_short = tf.reduce_all(tf.strings.length(name) < 100)
        with tf.control_dependencies([tf.debugging.Assert(is_short, [name])]):
            return {"short": tf.identity(name)}

    def product(x: Any) -> dict[str, Any]:
        return {"product": x @ tf.ones([3, 2])}

    rows = tf.TensorSpec([None, 3], tf.float32, "x")
    numbers = tf.TensorSpec([None], tf.int64, "count")
    names = tf.TensorSpec([None], tf.string, "name")
    archive = keras.export.ExportArchive()
    archive.add_endpoint("mixed", mixed, [rows, numbers, names])
    archive.add_endpoint("positive", positive, [rows])
    archive.add_endpoint("short", short, [names])
    archive.add_endpoint("product", product, [rows])
    archive.add_endpoint("compiled", tf.function(positive, [rows], jit_compile=True))
    archive.write_out(folder, verbose=False)
