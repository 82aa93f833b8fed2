"""The outputs of several networks drawn for one task: their likelihood, their mean, divergences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmeta.learners.output_kinds import OutputKind

_LIKELIHOODS = (
    *(keras.losses.SparseCategoricalCrossentropy, keras.losses.sparse_categorical_crossentropy),
    *(keras.losses.CategoricalCrossentropy, keras.losses.categorical_crossentropy),
    *(keras.losses.BinaryCrossentropy, keras.losses.binary_crossentropy),
    *(keras.losses.MeanSquaredError, keras.losses.mean_squared_error),
)


def check_likelihood(loss: Any) -> None:
    """Raises a ValueError unless a loss is −log p(y|φ) of an example, or the squared error.

    Args:
        loss: keras.losses.Loss or function, as `keras.losses.get` returns.
    """
    function = getattr(loss, "func", loss)
    classes = tuple(known for known in _LIKELIHOODS if isinstance(known, type))
    if not (isinstance(loss, classes) or any(function is known for known in _LIKELIHOODS)):
        raise ValueError(
            'inner_loss must be a likelihood: a cross-entropy for classes, or "mse", which stands '
            f"for Gaussian noise; got {loss!r}."
        )
    if getattr(loss, "reduction", None) == "sum":
        raise ValueError(
            "inner_loss must be a mean over the examples, whose number is accounted for; got "
            'reduction="sum": leave it out.'
        )


def mean_of(values: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the mean of tensors of one shape."""
    return tf.add_n(list(values)) / len(values)


def count(x: tf.Tensor, mask: tf.Tensor | None, like: tf.Tensor) -> tf.Tensor:
    """Returns the number of examples in `x` that are no padding, in the dtype of `like`.

    Args:
        x: tf.Tensor `[N, …]`.
        mask: tf.Tensor `[N]` or None. 0 for padding.
        like: tf.Tensor. Any tensor of floats.
    """
    if mask is None:
        return tf.cast(tf.shape(x)[0], like.dtype)
    return tf.reduce_sum(tf.cast(tf.cast(mask, tf.bool), like.dtype))


def averaged(outputs: Sequence[tf.Tensor], kind: OutputKind) -> tf.Tensor:
    """Averages what networks predict: probabilities, not logits; or values.

    Args:
        outputs: list of tf.Tensor `[N, …]`. The outputs of each network.
        kind: str. What they are. The result is of the same kind.

    Example:

    >>> two = [tf.math.log([[0.5, 0.5]]), tf.math.log([[0.9, 0.1]])]
    >>> round(float(tf.nn.softmax(averaged(two, "logits"))[0, 0]), 3)
    0.7
    """
    if kind == "logits":
        return _log_mean([tf.nn.log_softmax(z) for z in outputs])
    if kind == "binary_logits":
        return _log_mean([tf.math.log_sigmoid(z) for z in outputs]) - _log_mean(
            [tf.math.log_sigmoid(-z) for z in outputs]
        )
    return mean_of(outputs)


def gaussian_kl(
    means: Sequence[tf.Tensor],
    log_sigmas: Sequence[tf.Tensor],
    prior_means: Sequence[tf.Tensor],
    prior_log_sigmas: Sequence[tf.Tensor],
) -> tf.Tensor:
    """Returns KL(q ‖ p) of two Gaussians with diagonal covariances, each given in parts.

    Args:
        means: list of tf.Tensor. The means of q.
        log_sigmas: list of tf.Tensor. The logarithms of its standard deviations.
        prior_means: list of tf.Tensor. The means of p.
        prior_log_sigmas: list of tf.Tensor. The logarithms of its standard deviations.

    Example:

    >>> one, two = tf.constant([0.0]), tf.constant([1.0])
    >>> float(gaussian_kl([two], [one], [one], [one]))
    0.5
    """
    return tf.add_n(
        [
            tf.reduce_sum(
                log_p
                - log_q
                + (tf.exp(2 * (log_q - log_p)) + tf.square(q - p) * tf.exp(-2 * log_p) - 1) / 2
            )
            for q, log_q, p, log_p in zip(
                means, log_sigmas, prior_means, prior_log_sigmas, strict=True
            )
        ]
    )


def _log_mean(logarithms: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.reduce_logsumexp(tf.stack(list(logarithms)), axis=0) - math.log(len(logarithms))
