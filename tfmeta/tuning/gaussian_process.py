"""Gaussian processes: a kernel, the marginal likelihood and the posterior.

The libraries of Gaussian processes for TensorFlow need Keras 2 beside it (TensorFlow Probability)
and NumPy 1 (GPflow), so these few functions are here.
"""

from __future__ import annotations

import math

import tensorflow as tf


def matern52(a: tf.Tensor, b: tf.Tensor, length_scale: tf.Tensor) -> tf.Tensor:
    """Computes Matérn's kernel with ν = 5/2 and variance 1.

    Args:
        a: `[N, d]`.
        b: `[M, d]`.
        length_scale: scalar or `[d]`, > 0.

    Returns:
        `[N, M]`.

    Reference:
        Rasmussen & Williams (2006), "Gaussian Processes for Machine Learning", equation 4.17.
    """
    a, b = a / length_scale, b / length_scale
    squares = (
        tf.reduce_sum(a * a, 1)[:, None]
        + tf.reduce_sum(b * b, 1)
        - 2 * tf.matmul(a, b, transpose_b=True)
    )
    # The square root has no derivative at 0, where points are the same.
    scaled = tf.sqrt(5 * tf.maximum(squares, 1e-12))
    return (1 + scaled + scaled**2 / 3) * tf.exp(-scaled)


def factor(covariance: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Factorises the covariance of observations.

    Args:
        covariance: `[N, N]`. Of the observations, with their noise.
        scores: `[N]`. The observations, whose prior mean is 0.

    Returns:
        `[N, N]`, Cholesky's factor L; `[N, 1]`, L⁻¹ times the scores.
    """
    root = tf.linalg.cholesky(covariance)
    return root, tf.linalg.triangular_solve(root, scores[:, None])


def log_marginal_likelihood(root: tf.Tensor, white: tf.Tensor) -> tf.Tensor:
    """Computes the log density of observations.

    Args:
        root: `[N, N]`. The first result of `factor`.
        white: `[N, 1]`. The second one.

    Returns:
        scalar.

    Reference:
        Rasmussen & Williams (2006), equation 2.30.
    """
    log_root = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))
    n = tf.cast(tf.shape(white)[0], white.dtype)
    return -tf.reduce_sum(white**2) / 2 - log_root - n / 2 * math.log(2 * math.pi)


def posterior(
    root: tf.Tensor, white: tf.Tensor, cross: tf.Tensor, prior_variance: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes mean and variance at new points.

    Args:
        root: `[N, N]`. The first result of `factor`.
        white: `[N, 1]`. The second one.
        cross: `[N, M]`. Covariance of the observations with the new points.
        prior_variance: `[M]` or scalar. Of the new points.

    Returns:
        `[M]`, the mean; `[M]`, the variance, without noise.

    Reference:
        Rasmussen & Williams (2006), equations 2.25 and 2.26.
    """
    white_cross = tf.linalg.triangular_solve(root, cross)
    mean = tf.matmul(white_cross, white, transpose_a=True)[:, 0]
    variance = prior_variance - tf.reduce_sum(white_cross**2, axis=0)
    return mean, tf.maximum(variance, 0)
