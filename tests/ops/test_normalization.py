"""ops.normalize against its definition, in values and in derivatives of both orders."""

import numpy as np
import pytest
import tensorflow as tf

from tfmeta.ops import normalize

RNG = np.random.default_rng(0)
EPSILON = 1e-3


def by_definition(x, offset):
    axes = list(range(x.shape.rank - 1))
    mean = tf.reduce_mean(x, axes)
    variance = tf.reduce_mean((x - mean) ** 2, axes)
    return (x - mean) / tf.sqrt(variance + EPSILON) + offset


def values_and_derivatives(function, x, offset, weights):
    with tf.GradientTape() as outer:
        outer.watch([x, offset])
        with tf.GradientTape() as inner:
            inner.watch([x, offset])
            y = function(x, offset)
            loss = tf.reduce_sum(tf.sin(y) * weights)
        gradients = inner.gradient(loss, [x, offset])
        of_gradients = tf.add_n([tf.reduce_sum(tf.sin(3 * g)) for g in gradients])
    return [y, *gradients, *outer.gradient(of_gradients, [x, offset])]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-4)])
@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (7, 3), (2, 4, 3), (1, 1, 1, 3)])
def test_it_is_what_it_says(shape, dtype, tolerance):
    x = tf.constant(2 * RNG.normal(size=shape) + 1, dtype)
    offset, weights = tf.constant(RNG.normal(size=3), dtype), tf.constant(RNG.normal(size=shape))

    def ours(x, offset):
        return normalize(x, offset, EPSILON)

    values = values_and_derivatives(ours, x, offset, tf.cast(weights, dtype))
    graph = tf.function(values_and_derivatives, autograph=False)
    in_graph = graph(ours, x, offset, tf.cast(weights, dtype))
    x, offset = tf.cast(x, tf.float64), tf.cast(offset, tf.float64)
    expected = values_and_derivatives(by_definition, x, offset, weights)
    for mine, also, other in zip(values, in_graph, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(also, other, rtol=tolerance, atol=tolerance)


def test_without_an_offset_the_mean_is_zero():
    x = tf.constant(RNG.normal(size=(50, 2)) + 7)
    y = normalize(x, None, 0.0).numpy()
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-12)


def test_a_third_derivative_is_refused():
    x = tf.constant(RNG.normal(size=(5, 2)))
    with tf.GradientTape() as third:
        third.watch(x)
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                loss = tf.reduce_sum(normalize(x, None, EPSILON) ** 3)
            gradient = first.gradient(loss, x)
            loss = tf.reduce_sum(gradient**2)
        loss = tf.reduce_sum(second.gradient(loss, x) ** 2)
    with pytest.raises(LookupError, match="no third derivative"):
        third.gradient(loss, x)
