"""Batch normalisation whose second derivative takes a few passes over the data."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfmeta import tensorflow_internals


def normalize(x: tf.Tensor, offset: tf.Tensor | None, epsilon: float) -> tf.Tensor:
    """Shifts and scales each channel to variance 1 and a given mean over all other axes.

    It can be differentiated twice, as meta-learning needs, but not three times.

    Args:
        x: tf.Tensor `[…, channels]`, of rank 2 or more, channels static.
        offset: tf.Tensor `[channels]` or None. The mean to give; 0 if None.
        epsilon: float. Added to the variance.

    Returns:
        Like `x`: (x − μ) r + offset, with μ and r = 1 / √(variance + ε) of each channel.

    Example:

    >>> normalize(tf.constant([[1.0, 5.0], [3.0, 5.0]]), None, 1e-6).numpy().round(3)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """
    n_channels = x.shape[-1]
    offset = tf.zeros([n_channels], x.dtype) if offset is None else offset
    if x.shape.rank == 4:
        return _normalize(x, offset, epsilon)
    rows = tf.reshape(x, [-1, 1, 1, n_channels])
    return tf.reshape(_normalize(rows, offset, epsilon), tf.shape(x))


def normalized_product(
    x: tf.Tensor,
    kernel: tf.Tensor,
    scale: tf.Tensor | None,
    offset: tf.Tensor | None,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalises the matrix product of `x` with `kernel`, times `scale`, plus `offset`.

    With W the kernel and C the covariance of the columns of x, the product's channels have the
    variances diag(Wᵀ C W). So if x has few columns, and the product many, it is cheaper to
    normalise W: this needs no extra pass over the product, forward or backward.

    Args:
        x: tf.Tensor `[n, columns]`, float32 or float64.
        kernel: tf.Tensor `[columns, channels]`.
        scale: tf.Tensor `[channels]` or None. 1 if None.
        offset: tf.Tensor `[channels]` or None. The mean to give; 0 if None.
        epsilon: float. Added to the variance.

    Returns:
        The product, normalised, `[n, channels]`; and, before that, its channels' means and
        variances.

    Example:

    >>> x, kernel = tf.constant([[1.0], [3.0]]), tf.constant([[2.0, 5.0]])
    >>> y, mean, variance = normalized_product(x, kernel, None, None, 1e-6)
    >>> y.numpy().round(3)
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> mean.numpy().tolist(), variance.numpy().tolist()
    ([4.0, 10.0], [4.0, 25.0])
    """
    means = tf.reduce_mean(x, axis=0, keepdims=True)
    centred = x - means
    # Use float64: the variance may be a small difference of large terms.
    columns, weights = tf.cast(centred, tf.float64), tf.cast(kernel, tf.float64)
    n_rows = tf.cast(tf.shape(x)[0], tf.float64)
    covariance = tf.matmul(columns, columns, transpose_a=True) / n_rows
    variance = tf.reduce_sum(weights * tf.matmul(covariance, weights), axis=0)
    factor = tf.cast(tf.math.rsqrt(variance + epsilon), x.dtype)
    factor = factor if scale is None else factor * scale
    normalized = kernel * factor
    if offset is not None:
        # As another column of the product, the offset costs no extra pass over the result.
        centred = tf.concat([centred, tf.ones_like(centred[:, :1])], axis=1)
        normalized = tf.concat([normalized, offset[None]], axis=0)
    outputs = tf.matmul(centred, normalized)
    return outputs, tf.matmul(means, kernel)[0], tf.cast(variance, x.dtype)


def _normalize(x: tf.Tensor, offset: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Normalises images. With ŷ = (x − μ) r, n rows, and ⟨·⟩ the mean over them:

    - backward, from g: to x, r (g − ⟨g⟩ − ⟨g ŷ⟩ ŷ); to the offset, n ⟨g⟩;
    - backward of that, from u and v: to g, A(u) + v; to x, −r (⟨g ŷ⟩ A(u) + ⟨u ŷ⟩ A(g) +
      ⟨u A(g)⟩ ŷ). Here A(g) is the gradient to x above, and A is its own transpose.
    """
    kernels = (_Fused if x.dtype == tf.float32 else _Plain)(epsilon)
    n_channels = x.shape[-1]
    n_rows = tf.cast(tf.size(x) // n_channels, x.dtype)

    @tf.custom_gradient
    def forward(x: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, Any]:
        y, saved = kernels.forward(x, offset)

        @tf.custom_gradient
        def backward(g: tf.Tensor, x: tf.Tensor) -> tuple[Any, Any]:
            dx, sum_g, sum_gy = kernels.backward(g, x, saved)

            def backward_of_backward(u: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                dg, _, sum_uy = kernels.backward(u, x, saved)
                sum_udx = tf.reduce_sum(tf.reshape(u * dx, [-1, n_channels]), axis=0)
                factor = -kernels.scale(saved, n_rows) / n_rows
                by_y = factor * sum_udx
                parts = [factor * sum_gy * dg, factor * sum_uy * dx, by_y * y]
                to_x = tf.add_n(parts) - by_y * offset
                return _last(dg + v), _last(to_x)

            return (dx, sum_g), backward_of_backward

        return y, lambda g: backward(g, x)

    return forward(x, offset)


def _last(x: tf.Tensor) -> tf.Tensor:
    """Returns `x`; a third derivative, which would be silently wrong, raises an error."""
    return tensorflow_internals.without_gradient(x, "tfmeta.ops.normalize has no third derivative.")


class _Fused:
    """TensorFlow's fused kernels, one operation each; for float32."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def forward(self, x: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, Any]:
        saved = tensorflow_internals.fused_batch_norm(x, offset, self.epsilon)
        return saved.y, saved

    def backward(self, g: tf.Tensor, x: tf.Tensor, saved: Any) -> tuple[tf.Tensor, ...]:
        return tensorflow_internals.fused_batch_norm_gradient(g, x, saved, self.epsilon)

    def scale(self, saved: Any, n_rows: tf.Tensor) -> tf.Tensor:
        # The kernel's variance is unbiased (divisor n − 1).
        variance = saved.batch_variance * ((n_rows - 1) / n_rows)
        return tf.math.rsqrt(variance + self.epsilon)


class _Plain:
    """Elementary operations, for all other types."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def forward(self, x: tf.Tensor, offset: tf.Tensor) -> tuple[tf.Tensor, Any]:
        mean = tf.reduce_mean(x, [0, 1, 2])
        variance = tf.reduce_mean(tf.square(x - mean), [0, 1, 2])
        scale = tf.math.rsqrt(variance + self.epsilon)
        return (x - mean) * scale + offset, (mean, scale)

    def backward(self, g: tf.Tensor, x: tf.Tensor, saved: Any) -> tuple[tf.Tensor, ...]:
        mean, scale = saved
        y = (x - mean) * scale
        sum_g, sum_gy = tf.reduce_sum(g, [0, 1, 2]), tf.reduce_sum(g * y, [0, 1, 2])
        n_rows = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
        return scale * (g - sum_g / n_rows - y * (sum_gy / n_rows)), sum_g, sum_gy

    def scale(self, saved: Any, n_rows: tf.Tensor) -> tf.Tensor:
        return saved[1]
