"""ANIL against gradient descent on a head in NumPy, and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta

RATE = 0.2


def encoder(batch_norm=False, units=4):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(units, activation="tanh")]
    layers += [keras.layers.BatchNormalization(momentum=0.75)] if batch_norm else []
    return keras.Sequential([keras.Input((3,)), *layers], name="body")


def regression_tasks(n_tasks=2, n_support=6, n_query=5):
    rng = np.random.default_rng(0)
    shapes = {"support_x": (n_support, 3), "support_y": (n_support, 2), "query_x": (n_query, 3)}
    inputs = {k: rng.normal(size=(n_tasks, *shape)) for k, shape in shapes.items()}
    return inputs, rng.normal(size=(n_tasks, n_query, 2))


def body_and_head(learner):
    return learner.encoder.get_weights() + learner.network.get_weights()


def descended(kernel, bias, features, y, steps, rate=RATE):
    """A linear head after gradient descent on the mean squared error over rows and outputs."""
    for _ in range(steps):
        outer = 2 * (features @ kernel + bias - y) / y.size
        kernel, bias = kernel - rate * features.T @ outer, bias - rate * outer.sum(axis=0)
    return kernel, bias


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_only_the_head_adapts_by_gradient_descent_on_the_features(steps):
    learner = tfmeta.ANIL(
        encoder(),
        2,
        inner_learning_rate=RATE,
        inner_steps=1,
        test_inner_steps=steps,
        inner_loss="mse",
    )
    inputs, _ = regression_tasks()
    w, b, kernel, bias = body_and_head(learner)
    x, y, q = (inputs[k][1] for k in ("support_x", "support_y", "query_x"))
    kernel, bias = descended(kernel, bias, np.tanh(x @ w + b), y, steps)
    adapted = learner.adapt(x, y)
    for actual, expected in zip(adapted.get_weights(), (w, b, kernel, bias), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10)
    expected = np.tanh(q @ w + b) @ kernel + bias
    np.testing.assert_allclose(learner(inputs)[1], expected, rtol=1e-10)
    np.testing.assert_allclose(adapted.predict(q, verbose=0), expected, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradients_of_body_and_head(first_order, meta_gradient, numeric_gradient):
    learner = tfmeta.ANIL(
        encoder(),
        2,
        inner_learning_rate=RATE,
        inner_steps=3,
        first_order=first_order,
        inner_loss="mse",
    )
    inputs, query_y = regression_tasks()
    start = body_and_head(learner)

    def adapted_heads(w, b, kernel, bias):
        return [
            descended(kernel, bias, np.tanh(x @ w + b), y, 3)
            for x, y in zip(inputs["support_x"], inputs["support_y"], strict=True)
        ]

    def outer_loss(w, b, heads):
        predictions = [
            np.tanh(q @ w + b) @ kernel + bias
            for q, (kernel, bias) in zip(inputs["query_x"], heads, strict=True)
        ]
        return np.mean((np.stack(predictions) - query_y) ** 2)

    if first_order:
        # The steps that the head has gone are constants.
        ways = [(kernel - start[2], bias - start[3]) for kernel, bias in adapted_heads(*start)]
        expected = numeric_gradient(
            lambda w, b, kernel, bias: outer_loss(w, b, [(kernel + k, bias + c) for k, c in ways]),
            *start,
        )
    else:
        expected = numeric_gradient(
            lambda *weights: outer_loss(*weights[:2], adapted_heads(*weights)), *start
        )
    gradients = meta_gradient(learner, inputs, query_y)
    head, body = gradients[:2], gradients[2:]
    for actual, value in zip(body + head, expected, strict=True):
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(actual, value, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_a_head_of_one_s_own():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(2, use_bias=False)]
    head = keras.Sequential([keras.Input((4,)), *layers])
    learner = tfmeta.ANIL(
        encoder(), head, inner_learning_rate=RATE, inner_steps=2, inner_loss="mse"
    )
    inputs, _ = regression_tasks()
    body, (u, c, v) = learner.encoder.get_weights(), head.get_weights()
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    features = np.tanh(x @ body[0] + body[1])
    for _ in range(2):
        hidden = np.tanh(features @ u + c)
        outer = 2 * (hidden @ v - y) / y.size
        inner = (outer @ v.T) * (1 - hidden**2)
        u, c, v = (
            u - RATE * features.T @ inner,
            c - RATE * inner.sum(axis=0),
            v - RATE * hidden.T @ outer,
        )
    for actual, expected in zip(learner.adapt(x, y).get_weights(), (*body, u, c, v), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10)


@keras.saving.register_keras_serializable("test_anil")
class Squares(keras.Model):
    """A body whose layers are built by the first call."""

    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x) ** 2

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.usefixtures("float64")
def test_the_number_of_outputs_suffices_for_a_body_that_is_not_built(tmp_path):
    keras.utils.set_random_seed(0)
    learner = tfmeta.ANIL(Squares(), 2, inner_learning_rate=RATE, inner_steps=2, inner_loss="mse")
    assert not learner.built
    inputs, _ = regression_tasks()
    predictions = learner(inputs).numpy()
    w, b, kernel, bias = body_and_head(learner)
    x, y, q = (inputs[k][0] for k in ("support_x", "support_y", "query_x"))
    kernel, bias = descended(kernel, bias, (x @ w + b) ** 2, y, 2)
    np.testing.assert_allclose(predictions[0], (q @ w + b) ** 2 @ kernel + bias, rtol=1e-10)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_allclose(loaded(inputs), predictions, rtol=1e-12)


# === Batch norm of the body ===


def normalised(x, mean, variance):
    return (x - mean) / np.sqrt(variance + 1e-3)


def norm_learner(batch_norm):
    body = encoder(batch_norm=True)
    rng = np.random.default_rng(1)
    norm = body.layers[-1]
    norm.moving_mean.assign(rng.normal(size=4))
    norm.moving_variance.assign(rng.uniform(0.5, 2, size=4))
    learner = tfmeta.ANIL(
        body, 2, inner_learning_rate=RATE, inner_steps=2, batch_norm=batch_norm, inner_loss="mse"
    )
    return learner, norm, regression_tasks()[0]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", ["transductive", "support", "running"])
def test_the_body_normalises_by_the_statistics_of_its_mode(batch_norm, training):
    learner, norm, inputs = norm_learner(batch_norm)
    w, b = learner.encoder.layers[0].get_weights()
    moving = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    start = learner.network.get_weights()
    predictions = learner(inputs, training=training).numpy()
    averages = []
    for task in range(2):
        x, y, q = (inputs[k][task] for k in ("support_x", "support_y", "query_x"))
        x, q = np.tanh(x @ w + b), np.tanh(q @ w + b)
        by_support, by_query = ((h.mean(axis=0), h.var(axis=0)) for h in (x, q))
        if batch_norm == "support":
            by_query = by_support
        elif batch_norm == "running" and not training:
            by_support = by_query = moving
        kernel, bias = descended(*start, normalised(x, *by_support), y, 2)
        expected = normalised(q, *by_query) @ kernel + bias
        np.testing.assert_allclose(predictions[task], expected, rtol=1e-9)
        # The body sees the support set once, however many inner steps there are.
        once = [0.75 * m + 0.25 * s for m, s in zip(moving, by_support, strict=True)]
        averages.append([0.75 * m + 0.25 * s for m, s in zip(once, by_query, strict=True)])
    if batch_norm == "running" and training:
        moving = np.mean(averages, axis=0)
    np.testing.assert_allclose(norm.moving_mean, moving[0], rtol=1e-12)
    np.testing.assert_allclose(norm.moving_variance, moving[1], rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_the_adapted_model_has_the_support_set_s_statistics():
    learner, norm, inputs = norm_learner("support")
    w, b = learner.encoder.layers[0].get_weights()
    x = np.tanh(inputs["support_x"][0] @ w + b)
    adapted = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
    copied = adapted.layers[0].layers[-1]
    assert copied is not norm
    np.testing.assert_allclose(copied.moving_mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(copied.moving_variance, x.var(axis=0), rtol=1e-12)


# === Evaluation ===


@pytest.mark.usefixtures("float64")
def test_evaluation_by_inner_step_is_that_of_the_head_after_so_many_steps():
    learner = tfmeta.ANIL(
        encoder(), 2, inner_learning_rate=RATE, test_inner_steps=3, inner_loss="mse"
    )
    inputs, query_y = regression_tasks()
    episodes = tf.data.Dataset.from_tensors((inputs, query_y))
    result = tfmeta.evaluate(learner, episodes, n_episodes=2, inner_steps=3)
    w, b, kernel, bias = body_and_head(learner)
    for task in range(2):
        x, y, q = (inputs[k][task] for k in ("support_x", "support_y", "query_x"))
        for steps in range(4):
            k, c = descended(kernel, bias, np.tanh(x @ w + b), y, steps)
            expected = np.mean((np.tanh(q @ w + b) @ k + c - query_y[task]) ** 2)
            np.testing.assert_allclose(result.by_inner_step[steps, task], expected, rtol=1e-10)
    np.testing.assert_allclose(result.values, result.by_inner_step[3], rtol=1e-12)


# === Bad input ===


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match=r"encoder must be a keras\.Model; got Dense"):
        tfmeta.ANIL(keras.layers.Dense(3), 2)
    with pytest.raises(ValueError, match=r"must be a keras\.Model; got str"):
        tfmeta.ANIL(encoder(), "dense")


def test_labels_beyond_the_head_are_refused():
    learner = tfmeta.ANIL(encoder(), 2)
    with pytest.raises(ValueError, match="Labels must be from 0 to 1"):
        learner.adapt(np.zeros((3, 3)), np.array([0, 1, 2]))


def test_body_and_head_may_have_the_same_name():
    body = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)], name="head")
    tfmeta.ANIL(body, 2).adapt(np.zeros((2, 3), "float32"), np.array([0, 1]))


def test_a_body_that_keras_cannot_copy_adapts_too():
    class Body(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(8)

        def call(self, x):
            return self.dense(x)

        def get_config(self):
            raise NotImplementedError

    learner = tfmeta.ANIL(Body(), 3, inner_learning_rate=0.1, inner_steps=2, batch_norm="support")
    x, y = np.random.default_rng(0).random((6, 4), "float32"), np.arange(6) % 3
    adapted = learner.adapt(x, y)
    episode = {"support_x": x[None], "support_y": y[None], "query_x": x[None]}
    np.testing.assert_allclose(adapted.predict(x, verbose=0), learner(episode)[0], rtol=1e-5)
