"""ops.normalize against its definition, in values and in derivatives of both orders."""

import numpy as np
import pytest
import tensorflow as tf

from tfmeta.ops import normalize, normalized_product

RNG = np.random.default_rng(0)
EPSILON = 1e-3


def by_definition(x, offset):
    axes = list(range(x.shape.rank - 1))
    mean = tf.reduce_mean(x, axes)
    variance = tf.reduce_mean((x - mean) ** 2, axes)
    return (x - mean) / tf.sqrt(variance + EPSILON) + offset


def values_and_derivatives(function, *inputs, weights):
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            y = function(*inputs)
            loss = tf.reduce_sum(tf.sin(y) * weights)
        gradients = inner.gradient(loss, inputs)
        of_gradients = tf.add_n([tf.reduce_sum(tf.sin(3 * g)) for g in gradients])
    return [y, *gradients, *outer.gradient(of_gradients, inputs)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-4)])
@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (7, 3), (2, 4, 3), (1, 1, 1, 3)])
def test_it_is_what_it_says(shape, dtype, tolerance):
    x = tf.constant(2 * RNG.normal(size=shape) + 1, dtype)
    offset, weights = tf.constant(RNG.normal(size=3), dtype), tf.constant(RNG.normal(size=shape))

    def ours(x, offset):
        return normalize(x, offset, EPSILON)

    values = values_and_derivatives(ours, x, offset, weights=tf.cast(weights, dtype))
    graph = tf.function(values_and_derivatives, autograph=False)
    in_graph = graph(ours, x, offset, weights=tf.cast(weights, dtype))
    x, offset = tf.cast(x, tf.float64), tf.cast(offset, tf.float64)
    expected = values_and_derivatives(by_definition, x, offset, weights=weights)
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


# === Of a product ===


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 5e-4)])
@pytest.mark.parametrize("with_scale", [False, True])
@pytest.mark.parametrize("with_offset", [False, True])
def test_a_product_is_normalised_by_its_parts(with_scale, with_offset, dtype, tolerance):
    given = [RNG.normal(size=(30, 3)) + 1, RNG.normal(size=(3, 7))]
    given += [RNG.normal(size=7)] * with_scale + [RNG.normal(size=7)] * with_offset
    weights = tf.constant(RNG.normal(size=(30, 7)))

    def parts(vectors):
        vectors = list(vectors)
        scale = vectors.pop(0) if with_scale else None
        return scale, vectors.pop() if with_offset else None

    def ours(x, kernel, *vectors):
        return normalized_product(x, kernel, *parts(vectors), EPSILON)[0]

    def plain(x, kernel, *vectors):
        scale, offset = parts(vectors)
        y = by_definition(x @ kernel, 0)
        y = y if scale is None else y * scale
        return y if offset is None else y + offset

    inputs = [tf.constant(value, dtype) for value in given]
    values = values_and_derivatives(ours, *inputs, weights=tf.cast(weights, dtype))
    inputs = [tf.cast(value, tf.float64) for value in inputs]
    expected = values_and_derivatives(plain, *inputs, weights=weights)
    for mine, other in zip(values, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=tolerance)
    x, kernel = inputs[:2]
    _, mean, variance = normalized_product(x, kernel, None, None, EPSILON)
    np.testing.assert_allclose(mean, np.mean(x @ kernel, axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance, np.var(x @ kernel, axis=0), rtol=1e-12)


def test_a_variance_that_is_a_small_rest_of_large_parts_is_right_in_float32():
    # Two columns that all but cancel: of variances of 1, there remains one of 1e-6.
    x = np.tile(RNG.normal(size=(500, 1)), 2)
    x[:, 1] += 1e-3 * RNG.normal(size=500)
    x = x.astype("float32")
    kernel = np.array([[1.0], [-1.0]], "float32")
    _, _, variance = normalized_product(tf.constant(x), tf.constant(kernel), None, None, 0.0)
    expected = np.var(x.astype("float64") @ kernel.astype("float64"))
    assert 5e-7 < expected < 2e-6
    np.testing.assert_allclose(variance, [expected], rtol=1e-5)
