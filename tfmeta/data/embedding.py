"""Data sets of features: each example goes through an encoder once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfmeta import tensorflow_internals
from tfmeta.checks import check_integer, check_model
from tfmeta.data import feature_files
from tfmeta.data.class_dataset import ClassDataset
from tfmeta.networks import NoDigestError, network_digest
from tfmeta.version import __version__


def embed(
    source: ClassDataset,
    encoder: keras.Model,
    *,
    batch_size: int = 32,
    cache_dir: str | os.PathLike[str] | None = None,
    cache: bool = True,
    verbose: int = 1,
) -> ClassDataset:
    """Embeds each example of a data set; returns a data set of the features.

    The encoder is called once for each example, in inference mode, and the features are kept in a
    file. A later call with equal data and an equal encoder reads that file. Its key is a digest of
    the examples as the encoder gets them, the names of the classes, the encoder's configuration and
    weights, and the versions of tfmeta, TensorFlow and Keras. To know the digest, the examples are
    read each time, which costs little beside an encoder.

    Args:
        source: ClassDataset. What `tfmeta.data.load` returned.
        encoder: keras.Model. A built model from examples to features.
        batch_size: int. Examples per call of the encoder. Defaults to 32.
        cache_dir: str or path. The folder of the files, which may be deleted at any time. Defaults
            to None: `tfmeta/embeddings` in the folder `KERAS_HOME`, or else in `~/.keras`.
        cache: bool. Whether to read and write files. Defaults to True.
        verbose: int. 0 for silence, 1 for Keras's progress bar. Defaults to 1.

    Returns:
        A data set with the same classes and the features, float32, as examples. Every learner takes
        its episodes, with a network for vectors: `tfmeta.backbones.mlp`, for example.

    Raises:
        ValueError: If the source is no data set of classes, the encoder takes examples of another
            shape, or a feature is not finite.

    Warns:
        UserWarning: If a file in the cache is broken, or if the encoder has code that cannot be
            read, so that nothing is cached.

    Example:

    >>> import tfmeta
    >>> digits = tfmeta.data.load("digits", split="test")
    >>> encoder = tfmeta.backbones.conv4(None, digits.example_shape)
    >>> tfmeta.data.embed(digits, encoder, cache=False, verbose=0).example_shape
    (64,)
    """
    if not isinstance(source, ClassDataset):
        raise ValueError(
            f"source must be a ClassDataset, as tfmeta.data.load returns; got "
            f"{type(source).__name__}."
        )
    check_model("encoder", encoder)
    check_integer("batch_size", batch_size, 1)
    _check_fits(source, encoder)
    digest = data_digest(source, batch_size)
    file = _cache_file(encoder, digest, cache_dir) if cache else None
    n_examples = sum(map(len, source.rows))
    features = feature_files.read(file, n_examples) if file else None
    if features is None:
        features = _features(source, encoder, batch_size, verbose)
        if file:
            feature_files.write(file, features)
    labels = np.repeat(np.arange(len(source)), [len(rows) for rows in source.rows])
    return ClassDataset.from_arrays(
        features,
        labels,
        source.class_names,
        source={**source.source, "encoder": encoder.name},
        fingerprint=digest.__str__,
        groups=None if source.groups is None else np.concatenate(source.groups),
    )


def data_digest(source: ClassDataset, batch_size: int = 32) -> str:
    """Returns a digest of all examples of a data set, in their order, and the classes' names.

    A data set's own `fingerprint` does not do: of image files, it holds names and sizes only.

    Args:
        source: ClassDataset. The data set.
        batch_size: int. Examples to read at a time. Defaults to 32.
    """
    digest = hashlib.sha256(repr(source.example_shape).encode())
    for name, rows in zip(source.class_names, source.rows, strict=True):
        digest.update(f"{len(rows)} {name}\n".encode(errors="surrogatepass"))
    for examples in _batches(source, batch_size):
        digest.update(examples.numpy().tobytes())
    return digest.hexdigest()


def _check_fits(source: ClassDataset, encoder: keras.Model) -> None:
    shape = getattr(encoder, "input_shape", None)
    wanted = tuple(shape[1:]) if isinstance(shape, tuple) else None
    given = source.example_shape
    if wanted is not None and not (
        len(wanted) == len(given)
        and all(a in (None, b) for a, b in zip(wanted, given, strict=True))
    ):
        raise ValueError(
            f"The encoder takes examples of the shape {wanted}, but the data have {given}: make an "
            f"encoder with input_shape={given}, or load the data with another image_format."
        )


def _batches(source: ClassDataset, batch_size: int) -> Iterator[tf.Tensor]:
    """Yields the examples of all classes, one class after another."""
    rows = np.concatenate(source.rows)
    data = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
    data = data.map(source.fetch, num_parallel_calls=1).prefetch(1)
    explain = getattr(source.fetch, "explain", None)
    return iter(data if explain is None else tensorflow_internals.explaining(data, explain))


def _features(
    source: ClassDataset, encoder: keras.Model, batch_size: int, verbose: int
) -> np.ndarray:
    signature = tf.TensorSpec([None, *source.example_shape], tf.float32)

    @tf.function(input_signature=[signature])
    def encode(examples: tf.Tensor) -> tf.Tensor:
        return tf.cast(encoder(examples, training=False), tf.float32)

    # Not by calling `encode`, which warns of tracing for every encoder after the fifth.
    encoded = encode.get_concrete_function()
    n_examples = sum(map(len, source.rows))
    bar = keras.utils.Progbar(n_examples, verbose=verbose, unit_name="example")
    parts = []
    for examples in _batches(source, batch_size):
        parts.append(encoded(examples).numpy())
        bar.add(len(examples))
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        first = np.flatnonzero(~np.isfinite(features.reshape(n_examples, -1)).all(axis=1))[0]
        ends = np.cumsum([len(rows) for rows in source.rows])
        name = source.class_names[int(np.searchsorted(ends, first, side="right"))]
        raise ValueError(
            f"The features must be finite, but the encoder returns NaN or infinity for an example "
            f"of {name!r}."
        )
    return features


def _cache_file(
    encoder: keras.Model, data: str, cache_dir: str | os.PathLike[str] | None
) -> Path | None:
    try:
        of_encoder = network_digest(encoder)
    except NoDigestError as error:
        feature_files.warn(f"The features are not cached, for {error}.")
        return None
    parts = (data, of_encoder, __version__, tf.__version__, keras.__version__)
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    return feature_files.folder(cache_dir) / f"{key}.npz"
