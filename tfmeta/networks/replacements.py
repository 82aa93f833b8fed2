"""TensorFlow's functions whose second derivative is wrong or missing, replaced in episodes.

Keras looks them up in TensorFlow's public modules at each call. Outside of an episode, and in all
other threads, they are TensorFlow's own.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfmeta import ops, tensorflow_internals
from tfmeta.networks import vectorized_operations
from tfmeta.networks.episode import current_episode


def moments(
    x: tf.Tensor, axes: Any, shift: Any = None, keepdims: bool = False, name: str | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes `tf.nn.moments` with the right second derivatives.

    TensorFlow's own function treats the mean in the variance as a constant. This is right for a
    gradient, but wrong for the gradient of a gradient that meta-learning takes.
    """
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=keepdims, name=name)
    return (mean if keepdims else tf.squeeze(mean, axes)), variance


def softsign(features: tf.Tensor, name: str | None = None) -> tf.Tensor:
    """Computes `tf.nn.softsign`, for whose gradient TensorFlow has none."""
    features = tf.convert_to_tensor(features)
    return tf.divide(features, 1 + tf.abs(features), name=name)


def resize(
    images: tf.Tensor, size: Any, method: Any = "bilinear", *args: Any, **kwargs: Any
) -> tf.Tensor:
    """Computes `tf.image.resize`.

    Of its gradient TensorFlow has no derivative, and in the bilinear case takes it for zero.
    """
    images = tf.convert_to_tensor(images)
    original = tensorflow_internals.original("image.resize")
    if not images.dtype.is_floating:
        return original(images, size, method, *args, **kwargs)
    if method != tf.image.ResizeMethod.NEAREST_NEIGHBOR:
        # TensorFlow's result is float32; some of its gradients take nothing else.
        images = tf.cast(images, tf.float32)
    return ops.linear(lambda x: original(x, size, method, *args, **kwargs), images)


def _in_episodes(name: str, replacement: Any) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        compute = tensorflow_internals.original(name) if current_episode() is None else replacement
        return compute(*args, **kwargs)

    return function


def install() -> None:
    """Installs the replacements; further calls have no effect."""
    vectorized_operations.install()
    for name, replacement in {
        "nn.moments": moments,
        "nn.softsign": softsign,
        "math.softsign": softsign,
        "image.resize": resize,
    }.items():
        tensorflow_internals.install(name, _in_episodes(name, replacement))
