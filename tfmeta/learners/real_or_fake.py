"""A few-shot classifier as a discriminator: its classes are real, and one more is fake."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfmeta.learners.output_kinds import OutputKind

# Scores are kept this far from 0 and 1, where their logits are infinite.
SMALLEST_SCORE = 1e-6


def log_odds_of_real(predictions: tf.Tensor, kind: OutputKind) -> tf.Tensor:
    """Returns log p(real) − log p(fake) = log Z, with Z = Σ_c exp(l_c) of the classes' logits l_c.

    The logit of the class "fake" is 0, so p(real) = Z / (Z + 1).

    Args:
        predictions: tf.Tensor `[N, n_way]`. Logits; or scores r_c from 0 to 1, which are sigmoids
            of the logits, so that Z = Σ_c r_c / (1 − r_c).
        kind: str. Which of the two: `"logits"` or `"scores"`.

    Returns:
        `[N]`, in float32 or higher precision.

    Reference:
        Salimans et al. (2016), Improved Techniques for Training GANs,
        https://arxiv.org/abs/1606.03498, section 5.

    Example:

    >>> float(log_odds_of_real(tf.zeros([1, 4]), "logits")[0].numpy() - tf.math.log(4.0))
    0.0
    """
    if predictions.dtype in (tf.float16, tf.bfloat16):
        predictions = tf.cast(predictions, tf.float32)
    if kind == "scores":
        scores = tf.clip_by_value(predictions, SMALLEST_SCORE, 1 - SMALLEST_SCORE)
        predictions = tf.math.log(scores) - tf.math.log1p(-scores)
    return tf.reduce_logsumexp(predictions, axis=-1)


def loss_as_real(log_odds: tf.Tensor) -> tf.Tensor:
    """Returns −log p(real) of each example: softplus(−log Z) = softplus(log Z) − log Z."""
    return tf.nn.softplus(-log_odds)


def loss_as_fake(log_odds: tf.Tensor) -> tf.Tensor:
    """Returns −log p(fake) of each example: softplus(log Z)."""
    return tf.nn.softplus(log_odds)


def pooled_mean(values: Sequence[tf.Tensor], masks: Sequence[tf.Tensor | None]) -> tf.Tensor:
    """Returns the mean over the examples of several sets; 0 if there are none.

    Args:
        values: list of tf.Tensor `[N]`. One number for each example of a set.
        masks: list of tf.Tensor `[N]` or None. 0 for padding; None for no padding.
    """
    total, count = tf.zeros([], values[0].dtype), tf.zeros([], values[0].dtype)
    for value, mask in zip(values, masks, strict=True):
        weight = tf.ones_like(value) if mask is None else tf.cast(mask, value.dtype)
        # Padding is of any numbers, which may overflow.
        total += tf.reduce_sum(tf.where(weight > 0, value * weight, tf.zeros_like(value)))
        count += tf.reduce_sum(weight)
    return tf.math.divide_no_nan(total, count)
