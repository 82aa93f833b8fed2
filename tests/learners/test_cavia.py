"""CAVIA against gradient descent on the context in NumPy, and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta

RATE = 0.25


def linear_network():
    """y = x w + context v: linear in the context, and in all the rest."""
    keras.utils.set_random_seed(0)
    x, context = keras.Input((3,)), keras.Input((2,))
    parts = [keras.layers.Dense(1, use_bias=False)(part) for part in (x, context)]
    return keras.Model([x, context], keras.layers.Add()(parts))


def tanh_network():
    keras.utils.set_random_seed(0)
    x, context = keras.Input((3,)), keras.Input((2,))
    hidden = keras.layers.Dense(4, activation="tanh")(keras.layers.Concatenate()([x, context]))
    return keras.Model([x, context], keras.layers.Dense(1)(hidden))


def linear_tasks(n_tasks=3, n_support=6, n_query=5):
    rng = np.random.default_rng(0)
    shapes = {"support_x": (n_support, 3), "support_y": (n_support, 1), "query_x": (n_query, 3)}
    inputs = {k: rng.normal(size=(n_tasks, *shape)) for k, shape in shapes.items()}
    return inputs, rng.normal(size=(n_tasks, n_query, 1))


def linear_context(w, v, x, y, steps, rate=RATE):
    """The context after gradient descent from zero: all examples have the same."""
    context = np.zeros(2)
    for _ in range(steps):
        context = context - rate * 2 * np.mean(x @ w + context @ v - y) * v[:, 0]
    return context


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_the_context_descends_from_zero_in_every_task(steps):
    learner = tfmeta.CAVIA(
        linear_network(),
        inner_learning_rate=RATE,
        inner_steps=1,
        test_inner_steps=steps,
        inner_loss="mse",
    )
    inputs, _ = linear_tasks()
    w, v = learner.network.get_weights()
    predictions = learner(inputs).numpy()
    contexts = []
    for task in range(3):
        x, y, q = (inputs[k][task] for k in ("support_x", "support_y", "query_x"))
        contexts.append(linear_context(w, v, x, y, steps))
        np.testing.assert_allclose(predictions[task], q @ w + contexts[-1] @ v, rtol=1e-10)
        (state,) = learner.adapt_task(tf.constant(x), tf.constant(y))["trainable"]
        np.testing.assert_allclose(state, contexts[-1], rtol=1e-10)
    assert steps == 0 or np.abs(np.diff(contexts, axis=0)).min() > 1e-3


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rule", ["sgd", "per_parameter"])
@pytest.mark.parametrize("first_order", [False, True])
def test_only_shared_weights_have_meta_gradients(
    first_order, rule, meta_gradient, numeric_gradient
):
    network = tanh_network()
    options = {"inner_steps": 2, "first_order": first_order, "inner_rule": rule}
    learner = tfmeta.CAVIA(network, inner_learning_rate=RATE, inner_loss="mse", **options)
    inputs, query_y = linear_tasks()
    shared = network.trainable_variables
    rates = learner.inner_rule.trainable_variables
    assert [id(v) for v in learner.trainable_variables] == [id(v) for v in [*shared, *rates]]
    assert [tuple(v.shape) for v in rates] == ([(2,)] if rule == "per_parameter" else [])

    def forward(x, context, a, b, c, d):
        hidden = np.tanh(np.concatenate([x, np.tile(context, (len(x), 1))], axis=1) @ a + b)
        return hidden, hidden @ c + d

    def support_gradient(x, y, context, a, b, c, d):
        hidden, outputs = forward(x, context, a, b, c, d)
        inner = 2 * (outputs - y) / len(x) @ c.T * (1 - hidden**2)
        return (inner @ a[3:].T).sum(axis=0)

    def inner_gradients(x, y, *arrays):
        *weights, by_element = arrays
        context, gradients = np.zeros(2), []
        for _ in range(2):
            gradients.append(support_gradient(x, y, context, *weights))
            context = context - by_element * gradients[-1]
        return gradients

    start = [*(v.numpy() for v in shared), np.full(2, RATE)]

    def outer_loss(*arrays):
        *weights, by_element = arrays
        losses = []
        for task in range(3):
            x, y, q = (inputs[k][task] for k in ("support_x", "support_y", "query_x"))
            # In first order, the inner gradients are constants.
            gradients = inner_gradients(x, y, *(start if first_order else arrays))
            context = -by_element * sum(gradients)
            losses.append(np.mean((forward(q, context, *weights)[1] - query_y[task]) ** 2))
        return np.mean(losses)

    expected = numeric_gradient(outer_loss, *start)
    expected = expected[: len(learner.trainable_variables)]
    for actual, value in zip(meta_gradient(learner, inputs, query_y), expected, strict=True):
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(actual, value, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("float64")
def test_the_adapted_model_takes_examples_alone_and_has_the_context_inside():
    learner = tfmeta.CAVIA(
        linear_network(), inner_learning_rate=RATE, inner_steps=3, inner_loss="mse"
    )
    inputs, query_y = linear_tasks()
    x, y, q = (inputs[k][2] for k in ("support_x", "support_y", "query_x"))
    w, v = learner.network.get_weights()
    expected = q @ w + linear_context(w, v, x, y, 3) @ v
    adapted = learner.adapt(x, y)
    assert adapted.input_shape == (None, 3)
    np.testing.assert_allclose(adapted.predict(q, verbose=0), expected, rtol=1e-10)
    learner.compile("sgd", "mse", run_eagerly=True)
    learner.train_on_batch(inputs, query_y)
    np.testing.assert_allclose(adapted(q), expected, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_batch_norm_is_by_the_support_set_under_the_adapted_context():
    keras.utils.set_random_seed(0)
    x, context = keras.Input((3,)), keras.Input((2,))
    scaled = keras.layers.Multiply()([x, keras.layers.Dense(3)(context)])
    norm = keras.layers.BatchNormalization(scale=False, center=False)
    outputs = keras.layers.Dense(1, use_bias=False)(norm(keras.layers.Add()([x, scaled])))
    network = keras.Model([x, context], outputs)
    inputs, _ = linear_tasks()
    learner = tfmeta.CAVIA(
        network, inner_learning_rate=RATE, inner_steps=2, batch_norm="support", inner_loss="mse"
    )
    x, y, q = (inputs[k][0] for k in ("support_x", "support_y", "query_x"))
    (context,) = learner.adapt_task(tf.constant(x), tf.constant(y))["trainable"]
    assert np.abs(context).min() > 1e-6
    kernel, bias, last = (v.numpy() for v in network.trainable_variables)
    support, query = (part * (1 + context.numpy() @ kernel + bias) for part in (x, q))
    expected = (query - support.mean(axis=0)) / np.sqrt(support.var(axis=0) + 1e-3) @ last
    np.testing.assert_allclose(learner(inputs)[0], expected, rtol=1e-8)
    np.testing.assert_allclose(learner.adapt(x, y)(q[:1]), expected[:1], rtol=1e-8)


@pytest.mark.parametrize(
    "network",
    [
        lambda: tfmeta.backbones.mlp(1, (3,)),
        lambda: keras.Sequential([keras.layers.Dense(1)]),
        lambda: keras.Model(
            [keras.Input((3,)), (image := keras.Input((4, 4, 1)))], keras.layers.Flatten()(image)
        ),
    ],
    ids=["one input", "not built", "a context that is no vector"],
)
def test_a_network_without_a_context_is_refused(network):
    with pytest.raises(ValueError, match=r"two inputs \[x \[N, \*x\], context \[N, n_context\]\]"):
        tfmeta.CAVIA(network())


# === FiLM ===


def film_network(seed=0):
    keras.utils.set_random_seed(seed)
    return tfmeta.backbones.film_conv4(3, (16, 16, 2), n_context=4, filters=5)


def images(n=6):
    return np.random.default_rng(0).normal(size=(n, 16, 16, 2)).astype("float32")


def test_film_conv4_has_the_shapes_that_it_promises():
    network = film_network()
    assert network.input_shape == [(None, 16, 16, 2), (None, 4)]
    assert network.output_shape == (None, 3)
    shapes = {v.path: tuple(v.shape) for v in network.trainable_variables}
    assert shapes["film/kernel"] == (4, 10)
    convolutions = 9 * 2 * 5 + 3 * 9 * 5 * 5
    assert (
        sum(np.prod(s) for s in shapes.values()) == convolutions + 4 * 5 + 4 * 10 + 10 + 5 * 3 + 3
    )
    with pytest.raises(ValueError, match=r"input_shape must be \(height, width, channels\)"):
        tfmeta.backbones.film_conv4(3, (16, 16))


def test_a_context_of_zeros_changes_nothing_at_first():
    network, x = film_network(), images()
    film = network.get_layer("film")
    zeros, ones = np.zeros((6, 4), "float32"), np.ones((6, 4), "float32")
    outputs, changed = (network([x, context]).numpy() for context in (zeros, ones))
    plain = tfmeta.backbones.conv4(3, (16, 16, 2), filters=5)
    for layer in plain.layers:
        layer.set_weights(network.get_layer(layer.name).get_weights() if layer.weights else [])
    np.testing.assert_allclose(outputs, plain(x), rtol=1e-5, atol=1e-6)
    assert np.abs(changed - outputs).max() > 1e-3
    film.set_weights([np.zeros_like(w) for w in film.get_weights()])
    for context in (zeros, ones):
        np.testing.assert_allclose(network([x, context]), outputs, rtol=1e-6, atol=1e-7)


def test_film_scales_and_shifts_the_third_block_channel_by_channel():
    network, x = film_network(), images()
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(4, 10)), rng.normal(size=10)
    network.get_layer("film").set_weights([kernel, bias])
    context = rng.normal(size=(6, 4))
    names = ("norm3", "relu3")
    block = keras.Model(network.inputs, [network.get_layer(name).output for name in names])
    h, outputs = (part.numpy() for part in block([x, context.astype("float32")]))
    film = context @ kernel + bias
    gamma, beta = 1 + film[:, None, None, :5], film[:, None, None, 5:]
    np.testing.assert_allclose(outputs, np.maximum(gamma * h + beta, 0), rtol=1e-4, atol=1e-5)
    assert h.shape == (6, 2, 2, 5) and (outputs > 0).any()
