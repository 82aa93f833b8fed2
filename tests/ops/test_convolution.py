"""ops.conv2d against sums over pixels, and against Keras's own, whose gradients it must share."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmeta.ops import conv2d, patches_size

RNG = np.random.default_rng(0)

# (height, width), (rows, columns), strides, padding, dilation
SETTINGS = [
    ((14, 14), (3, 3), (2, 2), "same", (1, 1)),
    ((7, 5), (3, 2), (1, 2), "valid", (1, 1)),
    ((7, 5), (3, 3), (2, 2), "same", (1, 1)),
    ((9, 8), (3, 3), (1, 1), "same", (2, 2)),
    ((8, 8), (1, 1), (2, 2), "valid", (1, 1)),
    ((6, 6), (2, 2), (3, 3), "same", (1, 1)),
]
# No tap of the kernel is inside of the image.
NOTHING_SEEN = ((3, 3), (2, 2), (1, 1), "same", (8, 8))


def test_a_picture_by_hand():
    x = tf.reshape(tf.range(9.0), [1, 3, 3, 1])
    kernel = tf.reshape(tf.constant([1.0, 10.0, 100.0, 1000.0]), [2, 2, 1, 1])
    # The top left patch is 0 1 3 4, the bottom right one of a padded image 8 and zeros.
    assert conv2d(x, kernel).numpy()[0, 0, 0, 0] == 0 + 10 * 1 + 100 * 3 + 1000 * 4
    assert conv2d(x, kernel, padding="same").numpy()[0, 2, 2, 0] == 8


def convolved(x, kernel, strides, dilation):
    """Of an image large enough, by the sums of its definition."""
    rows, columns = kernel.shape[:2]
    height = (x.shape[1] - (rows - 1) * dilation[0] - 1) // strides[0] + 1
    width = (x.shape[2] - (columns - 1) * dilation[1] - 1) // strides[1] + 1
    y = np.zeros((len(x), height, width, kernel.shape[3]))
    for n, i, j in np.ndindex(y.shape[:3]):
        for a, b in itertools.product(range(rows), range(columns)):
            pixel = x[n, i * strides[0] + a * dilation[0], j * strides[1] + b * dilation[1]]
            y[n, i, j] += pixel @ kernel[a, b]
    return y


@pytest.mark.parametrize(("size", "kernel_size", "strides", "_", "dilation"), SETTINGS)
def test_it_is_the_sum_over_pixels(size, kernel_size, strides, _, dilation):
    x, kernel = RNG.normal(size=(2, *size, 3)), RNG.normal(size=(*kernel_size, 3, 4))
    y = conv2d(tf.constant(x), tf.constant(kernel), strides, "valid", dilation)
    np.testing.assert_allclose(y, convolved(x, kernel, strides, dilation), atol=1e-12)


def values_and_derivatives(function, x, kernel):
    """The result, the gradients of a function of it, and those of a function of these."""
    with tf.GradientTape() as outer:
        outer.watch([x, kernel])
        with tf.GradientTape() as inner:
            inner.watch([x, kernel])
            y = function(x, kernel)
            loss = tf.reduce_sum(tf.sin(y))
        gradients = inner.gradient(loss, [x, kernel])
        of_gradients = tf.add_n([tf.reduce_sum(tf.sin(g)) for g in gradients])
    return [y, *gradients, *outer.gradient(of_gradients, [x, kernel])]


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "padding", "dilation"), [*SETTINGS, NOTHING_SEEN]
)
def test_derivatives_of_both_orders_are_keras_own(size, kernel_size, strides, padding, dilation):
    x = tf.constant(RNG.normal(size=(3, *size, 4)))
    kernel = tf.constant(0.2 * RNG.normal(size=(*kernel_size, 4, 5)))

    def ours(x, kernel):
        return conv2d(x, kernel, strides, padding, dilation)

    def keras_own(x, kernel):
        return keras.ops.conv(x, kernel, strides, padding, dilation_rate=dilation)

    @tf.function
    def ours_in_a_graph(x, kernel):
        return values_and_derivatives(ours, x, kernel)

    expected = values_and_derivatives(keras_own, x, kernel)
    for values in (values_and_derivatives(ours, x, kernel), ours_in_a_graph(x, kernel)):
        for value, other in zip(values, expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-10, atol=1e-10)


def test_the_size_of_the_patches():
    x = tf.zeros([5, 14, 14, 64])
    assert patches_size(x, (3, 3), (2, 2), "same") == 5 * 7 * 7 * 9 * 64 * 4
    assert patches_size(tf.cast(x, tf.float64), (3, 3)) == 5 * 12 * 12 * 9 * 64 * 8
    sizes = []

    @tf.function(input_signature=[tf.TensorSpec([None, 14, 14, 64])])
    def any_number(x):
        sizes.append(patches_size(x, (3, 3)))

    any_number(x)
    assert sizes == [math.inf]


def test_jacobians_and_vectorized_maps_pass_through_the_convolution():
    x = tf.constant(RNG.normal(size=(2, 1, 5, 5, 2)))
    kernel = tf.constant(RNG.normal(size=(3, 3, 2, 3)))

    def ours(x):
        return conv2d(x, kernel, (2, 2), "same")

    together = tf.vectorized_map(ours, x)
    np.testing.assert_allclose(together, tf.stack([ours(x[0]), ours(x[1])]), rtol=1e-12)

    def jacobian(convolve):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            y = convolve(x[0], kernel, (2, 2), "same")
        return tape.jacobian(y, kernel)

    np.testing.assert_allclose(jacobian(conv2d), jacobian(keras.ops.conv), rtol=1e-10, atol=1e-12)
