"""What `tf.vectorized_map` makes of a function is what a loop makes of it."""

import numpy as np
import pytest
import tensorflow as tf

from tfmeta import pfor_internals

X = np.random.default_rng(0).normal(size=(3, 4, 5, 6))


FUNCTIONS = {
    "argmax": lambda x, a: tf.argmax(x, axis=a),
    "argmin": lambda x, a: tf.argmin(x, axis=a),
    "argsort": lambda x, a: tf.argsort(x, axis=a),
    "concat": lambda x, a: tf.concat([x, 2 * x], axis=a),
    "cumprod": lambda x, a: tf.math.cumprod(x, axis=a, reverse=True),
    "cumsum": lambda x, a: tf.cumsum(x, axis=a, exclusive=True),
    "cumulative_logsumexp": lambda x, a: tf.math.cumulative_logsumexp(x, axis=a),
    "expand_dims": lambda x, a: tf.expand_dims(x, axis=a),
    "gather": lambda x, a: tf.gather(x, [1, 0, 1], axis=a),
    "l2_normalize": lambda x, a: tf.math.l2_normalize(x, axis=a),
    "log_softmax": lambda x, a: tf.nn.log_softmax(x, axis=a),
    "moments": lambda x, a: tf.nn.moments(x, [a])[1],
    "reduce_any": lambda x, a: tf.reduce_any(x > 0, axis=a),
    "reduce_max": lambda x, a: tf.reduce_max(x, axis=a),
    "reduce_sum": lambda x, a: tf.reduce_sum(x, axis=[a], keepdims=True),
    "repeat": lambda x, a: tf.repeat(x, 2, axis=a),
    "reverse": lambda x, a: tf.reverse(x, [a]),
    "roll": lambda x, a: tf.roll(x, 1, a),
    "roll by what differs": lambda x, a: tf.roll(x, tf.cast(x[0, 0, 0] > 0, tf.int32), a),
    "roll of several axes": lambda x, a: tf.roll(x, [1, 2], [a, 0]),
    "softmax": lambda x, a: tf.nn.softmax(x, axis=a),
    "sort": lambda x, a: tf.sort(x, axis=a, direction="DESCENDING"),
    "split": lambda x, a: tf.split(x, [1, x.shape[a] - 1], axis=a)[1],
    "squeeze": lambda x, a: tf.squeeze(tf.expand_dims(x, a), axis=a),
    "stack": lambda x, a: tf.stack([x, -x], axis=a),
    "take_along_axis": lambda x, a: tf.experimental.numpy.take_along_axis(
        x, tf.argsort(x, axis=a), axis=a
    ),
    "unstack": lambda x, a: tf.unstack(x, axis=a)[1],
    "where": lambda x, a: tf.where(x > 0, x, tf.reduce_sum(x, axis=a, keepdims=True)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_axes_are_those_of_one_element(name):
    """Counted from the front and from the back. TensorFlow's `Roll` is wrong in the latter."""
    pfor_internals.complete_converters()
    for axis in (0, 1, 2, -1, -2, -3):

        def function(x, axis=axis):
            return FUNCTIONS[name](x, axis)

        at_once = pfor_internals.vectorized_map(function, tf.constant(X), [])
        one_by_one = np.stack([function(tf.constant(x)) for x in X])
        np.testing.assert_allclose(at_once, one_by_one, rtol=1e-12, err_msg=str(axis))


def test_what_only_a_loop_can_do_is_named():
    loops = []
    kernels = tf.random.stateless_normal([3, 2, 2, 2, 4, 1], [1, 2])

    def convolved(kernel):
        return tf.nn.conv3d(tf.ones([1, 3, 3, 3, 4]), kernel, [1] * 5, "VALID")

    result = pfor_internals.vectorized_map(convolved, kernels, loops)
    assert set(loops) == {"Conv3D"}
    np.testing.assert_allclose(result, np.stack([convolved(k) for k in kernels]), rtol=1e-5)


def test_the_error_of_a_function_is_its_own():
    def refuse(x):
        raise KeyError("no such layer")

    with pytest.raises(KeyError, match="no such layer"):
        pfor_internals.vectorized_map(refuse, tf.constant(X), [])


@pytest.mark.parametrize("shift", [2, -1])
def test_a_random_number_is_that_of_its_own_seed(shift):
    seeds = tf.constant([[1, 2], [3, 4], [5, shift]])

    def draw(seed):
        return tf.random.stateless_normal([4], seed), tf.random.stateless_uniform(
            [4], seed, 0, 9, tf.int32
        )

    loops = []
    at_once = pfor_internals.vectorized_map(draw, seeds, loops)
    assert not loops
    for i in range(3):
        for a, b in zip(at_once, draw(seeds[i]), strict=True):
            np.testing.assert_array_equal(a[i], b)
