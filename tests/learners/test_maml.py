"""MAML against values worked out independently: closed forms, finite differences, NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import MODES, each_with_one_mode, most_are_large

import tfmeta

RNG = np.random.default_rng(0)
SGD1 = {"class_name": "SGD", "config": {"learning_rate": 1.0}}


def meta_gradient(learner, inputs, query_y, loss):
    """The gradient that one training step applies: what SGD with rate 1 subtracts."""
    learner.compile(optimizer=keras.optimizers.get(SGD1), loss=loss, run_eagerly=True)
    before = [v.numpy() for v in learner.trainable_variables]
    learner.train_step((inputs, query_y))
    gradient = [b - v.numpy() for b, v in zip(before, learner.trainable_variables, strict=True)]
    for variable, value in zip(learner.trainable_variables, before, strict=True):
        variable.assign(value)
    return gradient


# === The linear model, in closed form ===


def linear_learner(**options):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    return tfmeta.MAML(network, inner_loss="mse", **options)


def linear_tasks(n_tasks=4, n_support=6, n_query=7):
    shapes = {"support_x": n_support, "query_x": n_query}
    inputs = {k: RNG.normal(size=(n_tasks, n, 3)) for k, n in shapes.items()}
    inputs["support_y"] = RNG.normal(size=(n_tasks, n_support, 1))
    return inputs, RNG.normal(size=(n_tasks, n_query, 1))


def linear_descent(w, x, y, rate, steps):
    """Gradient descent on mean((xw - y)²), and the derivative of its result by its start."""
    derivative = np.eye(len(w))
    for _ in range(steps):
        w = w - rate * 2 * x.T @ (x @ w - y) / len(x)
        derivative = (np.eye(len(w)) - rate * 2 * x.T @ x / len(x)) @ derivative
    return w, derivative


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.usefixtures("float64")
def test_linear_meta_gradient_is_the_closed_form(steps, first_order):
    rate = 0.1
    learner = linear_learner(inner_learning_rate=rate, inner_steps=steps, first_order=first_order)
    inputs, query_y = linear_tasks()
    expected = 0.0
    w = learner.network.get_weights()[0]
    for x, y, q, t in zip(
        inputs["support_x"], inputs["support_y"], inputs["query_x"], query_y, strict=True
    ):
        adapted, derivative = linear_descent(w, x, y, rate, steps)
        outer = 2 * q.T @ (q @ adapted - t) / len(q)
        expected = expected + (outer if first_order else derivative.T @ outer) / len(query_y)
    loss = keras.losses.MeanSquaredError()
    (gradient,) = meta_gradient(learner, inputs, query_y, loss)
    np.testing.assert_allclose(gradient, expected, rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.usefixtures("float64")
def test_every_inner_step_starts_from_the_last(steps):
    learner = linear_learner(inner_learning_rate=0.2, test_inner_steps=steps)
    inputs, _ = linear_tasks(n_tasks=1)
    w = learner.network.get_weights()[0]
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    adapted = learner.adapt(x, y).get_weights()[0]
    np.testing.assert_allclose(adapted, linear_descent(w, x, y, 0.2, steps)[0], rtol=1e-12)
    restarted = linear_descent(w, x, y, 0.2, 1)[0]
    assert steps == 1 or np.abs(adapted - restarted).max() > 1e-3


@pytest.mark.usefixtures("float64")
def test_training_and_test_take_their_own_number_of_steps():
    learner = linear_learner(inner_learning_rate=0.1, inner_steps=1, test_inner_steps=4)
    inputs, _ = linear_tasks(n_tasks=1)
    w = learner.network.get_weights()[0]
    x, y, q = (inputs[k][0] for k in ("support_x", "support_y", "query_x"))
    for training, steps in ((True, 1), (False, 4)):
        expected = q @ linear_descent(w, x, y, 0.1, steps)[0]
        actual = learner(inputs, training=training)[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


# === A non-linear network, by finite differences ===


def smooth_network():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, activation="tanh")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dense(3)(x)
    return keras.Model(inputs, x)


def classification_tasks(n_tasks=2, n_way=3, n_shot=2, n_query=2, shape=(4,), dtype="float64"):
    inputs = {
        "support_x": RNG.normal(size=(n_tasks, n_way * n_shot, *shape)).astype(dtype),
        "support_y": np.tile(np.repeat(np.arange(n_way), n_shot), (n_tasks, 1)),
        "query_x": RNG.normal(size=(n_tasks, n_way * n_query, *shape)).astype(dtype),
    }
    return inputs, np.tile(np.repeat(np.arange(n_way), n_query), (n_tasks, 1))


def cross_entropy(logits, labels):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return -np.take_along_axis(log_p, labels[..., None], axis=-1).mean()


@pytest.mark.parametrize(
    ("steps", "batch_norm"),
    [
        *each_with_one_mode([1]),
        *(pytest.param(n, mode, marks=pytest.mark.large) for n in (2, 5) for mode in MODES),
    ],
)
@pytest.mark.usefixtures("float64")
def test_meta_gradient_is_the_finite_difference(steps, batch_norm):
    keras.utils.set_random_seed(0)
    learner = tfmeta.MAML(
        smooth_network(), inner_learning_rate=0.3, inner_steps=steps, batch_norm=batch_norm
    )
    inputs, query_y = classification_tasks()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    start = learner.get_weights()
    gradient = meta_gradient(learner, inputs, query_y, loss)
    learner.set_weights(start)  # The running mode has moved its averages.

    def meta_loss():
        value = cross_entropy(learner(inputs, training=True).numpy(), query_y)
        learner.set_weights(weights)
        return value

    epsilon = 1e-5
    for variable, analytic in zip(learner.trainable_variables, gradient, strict=True):
        value = variable.numpy()
        for index in [np.unravel_index(i, value.shape) for i in range(0, value.size, 3)]:
            numeric = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * epsilon
                variable.assign(moved)
                weights = learner.get_weights()
                numeric.append(meta_loss())
            variable.assign(value)
            difference = (numeric[0] - numeric[1]) / (2 * epsilon)
            assert analytic[index] == pytest.approx(difference, rel=1e-6, abs=1e-9)


SMALL_CONV = {"input_shape": (16, 16, 2), "filters": 3}
DEEP_NETWORKS = {
    "conv4, stride, mean": lambda: tfmeta.backbones.conv4(3, **SMALL_CONV),
    "conv4, max-pool, flatten": lambda: tfmeta.backbones.conv4(
        3, **SMALL_CONV, downsampling="max_pool", head="flatten"
    ),
    "layer and group normalisation": lambda: keras.Sequential(
        [
            keras.Input((16, 16, 2)),
            keras.layers.Conv2D(4, 3, 4, activation="swish"),
            keras.layers.LayerNormalization(),
            keras.layers.GroupNormalization(2),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    ),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("network", most_are_large(DEEP_NETWORKS, ["conv4, max-pool, flatten"]))
def test_second_derivatives_through_deep_networks_are_right(network):
    keras.utils.set_random_seed(1)
    learner = tfmeta.MAML(network(), inner_learning_rate=0.3, inner_steps=2)
    inputs, query_y = classification_tasks(shape=(16, 16, 2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    gradient = meta_gradient(learner, inputs, query_y, loss)
    direction = [RNG.normal(size=g.shape) for g in gradient]
    start = [v.numpy() for v in learner.trainable_variables]
    values = []
    for step in (1e-6, -1e-6):
        for variable, value, d in zip(learner.trainable_variables, start, direction, strict=True):
            variable.assign(value + step * d)
        values.append(cross_entropy(learner(inputs, training=True).numpy(), query_y))
    expected = (values[0] - values[1]) / 2e-6
    actual = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    assert actual == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("float64")
def test_first_order_gradient_is_that_of_the_queries_at_the_adapted_weights():
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(3),
        ]
    )
    learner = tfmeta.MAML(network, inner_learning_rate=0.5, inner_steps=3, first_order=True)
    inputs, query_y = classification_tasks()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    gradient = meta_gradient(learner, inputs, query_y, loss)
    expected = [0.0 for _ in gradient]
    for t in range(2):
        adapted = learner.adapt(inputs["support_x"][t], inputs["support_y"][t])
        with tf.GradientTape() as tape:
            value = loss(query_y[t], adapted(inputs["query_x"][t]))
        of_task = tape.gradient(value, [v.value for v in adapted.trainable_variables])
        expected = [e + g.numpy() / 2 for e, g in zip(expected, of_task, strict=True)]
    for actual, value in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-10, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_batch_norm_parameters_are_meta_learned_but_not_adapted():
    learner = tfmeta.MAML(
        smooth_network(), inner_learning_rate=0.5, inner_steps=2, batch_norm="support"
    )
    inputs, query_y = classification_tasks()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    gradients = meta_gradient(learner, inputs, query_y, loss)
    adapted = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
    for before, after, gradient in zip(
        learner.network.trainable_variables, adapted.trainable_variables, gradients, strict=True
    ):
        is_norm = before.name in ("gamma", "beta")
        assert np.array_equal(before, after) == is_norm
        assert np.abs(gradient).max() > 0


# === Inner losses ===


class SquaredError(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)


def squared_error(y_true, y_pred):
    return keras.ops.mean((y_true - y_pred) ** 2, axis=-1)


@pytest.mark.parametrize(
    ("inner_loss", "factor"),
    [
        ("mse", 1),
        ("mean_squared_error", 1),
        (squared_error, 1),
        (SquaredError(), 1),
        (keras.losses.MeanSquaredError(), 1),
        (keras.losses.MeanSquaredError(reduction="sum"), 6),
    ],
)
def test_any_keras_loss_serves_as_inner_loss(inner_loss, factor):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    learner = tfmeta.MAML(network, inner_learning_rate=0.01, inner_loss=inner_loss)
    inputs, _ = linear_tasks(n_tasks=1)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    expected, _ = linear_descent(network.get_weights()[0], x, y, 0.01 * factor, 1)
    np.testing.assert_allclose(learner.adapt(x, y).get_weights()[0], expected, rtol=1e-4)


@pytest.mark.parametrize("inner_loss", ["binary_crossentropy", keras.losses.BinaryCrossentropy()])
def test_binary_labels_are_not_broadcast_against_a_column_of_outputs(inner_loss):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, activation="sigmoid")])
    learner = tfmeta.MAML(network, inner_learning_rate=1.0, inner_loss=inner_loss)
    x, y = RNG.normal(size=(6, 3)).astype("float32"), np.array([0, 1, 1, 0, 1, 0])
    w, b = network.get_weights()
    residual = 1 / (1 + np.exp(-(x @ w + b))) - y[:, None]
    expected = w - x.T @ residual / 6
    np.testing.assert_allclose(learner.adapt(x, y).get_weights()[0], expected, rtol=1e-4)


# === Classification or regression ===

SPARSE = keras.losses.SparseCategoricalCrossentropy


def network_for(kind, n_outputs=3):
    activation = "softmax" if kind == "scores" else None
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(n_outputs, activation)])


def learners_with(inner_loss, kind):
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    head = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3, "softmax" if kind == "scores" else None)]
    )
    x, context = keras.Input((4,)), keras.Input((2,))
    outputs = network_for(kind)(x + keras.layers.Dense(4)(context))
    return [
        tfmeta.MAML(network_for(kind), inner_loss=inner_loss),
        tfmeta.MetaSGD(network_for(kind), inner_loss=inner_loss),
        tfmeta.MAMLPlusPlus(network_for(kind), inner_loss=inner_loss),
        tfmeta.Reptile(network_for(kind), inner_loss=inner_loss),
        tfmeta.MetaLSTM(network_for(kind), inner_loss=inner_loss),
        tfmeta.ANIL(encoder, head, inner_loss=inner_loss),
        tfmeta.CAVIA(keras.Model([x, context], outputs), inner_loss=inner_loss),
    ]


@pytest.mark.parametrize(
    ("inner_loss", "kind"),
    [
        (None, "logits"),
        pytest.param(SPARSE(from_logits=True), "logits", marks=pytest.mark.large),
        pytest.param(SPARSE(), "scores", marks=pytest.mark.large),
        pytest.param("SparseCategoricalCrossentropy", "scores", marks=pytest.mark.large),
        ("sparse_categorical_crossentropy", "scores"),
        pytest.param(
            keras.losses.sparse_categorical_crossentropy, "scores", marks=pytest.mark.large
        ),
        pytest.param("mse", "values", marks=pytest.mark.large),
        (squared_error, "values"),
    ],
)
def test_the_inner_loss_tells_what_the_network_returns(inner_loss, kind):
    x = RNG.normal(size=(3, 4)).astype("float32")
    for learner in learners_with(inner_loss, kind):
        assert learner.output_kind == kind
        assert learner.default_loss().from_logits == (kind != "scores")
        if kind == "values":
            assert learner.adapt(x, RNG.normal(size=(3, 3))).output_kind == kind
            continue
        assert learner.adapt(x, np.array([0, 1, 2])).output_kind == kind
        with pytest.raises(ValueError, match=r"Labels must be from 0 to 2.* another inner_loss="):
            learner.adapt(x, np.array([0, 1, 3]))
        with pytest.raises(ValueError, match="must be integer labels"):
            learner.adapt(x, np.array([0.0, 1.0, 2.0]))


@pytest.mark.parametrize("inner_loss", [SPARSE(), "sparse_categorical_crossentropy"])
def test_inner_steps_on_probabilities_are_those_on_logits(inner_loss, tmp_path):
    inputs, _ = classification_tasks(n_tasks=1, dtype="float32")
    networks = network_for("scores"), network_for("logits")
    networks[1].set_weights(networks[0].get_weights())
    of_scores = tfmeta.MAML(
        networks[0], inner_learning_rate=0.5, inner_steps=2, inner_loss=inner_loss
    )
    of_logits = tfmeta.MAML(networks[1], inner_learning_rate=0.5, inner_steps=2)
    scores, logits = of_scores(inputs), of_logits(inputs)
    np.testing.assert_allclose(scores, keras.ops.softmax(logits), rtol=1e-4, atol=1e-6)
    of_scores.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.output_kind == "scores"
    np.testing.assert_array_equal(loaded(inputs), scores)


# === Base networks ===


class Residual(keras.Model):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.shared = keras.layers.Dense(units, activation="relu")
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(0.3)
        self.out = keras.layers.Dense(3)

    def call(self, x, training=False):
        x = keras.ops.concatenate([x, x], axis=-1)
        x = self.drop(self.norm(self.shared(x), training=training), training=training)
        return self.out(x + self.shared(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional_network():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(6, activation="relu")
    nested = keras.Sequential([keras.layers.Dense(6), keras.layers.BatchNormalization()])
    heads = [shared(inputs), shared(keras.layers.Dropout(0.5)(inputs)), nested(inputs)]
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Concatenate()(heads)))


def sequential_network():
    return keras.Sequential(
        [
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3),
        ]
    )


NETWORKS = {
    "functional, shared and nested layers, heads": functional_network,
    "sequential, not built": sequential_network,
    "subclassed": lambda: Residual(8),
}


@pytest.mark.large
@pytest.mark.parametrize("batch_norm", MODES)
@pytest.mark.parametrize("network", NETWORKS)
def test_any_keras_model_trains_adapts_saves_and_loads(network, batch_norm, tmp_path):
    keras.utils.set_random_seed(0)
    learner = tfmeta.MAML(
        NETWORKS[network](), inner_learning_rate=0.1, inner_steps=2, batch_norm=batch_norm
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
    inputs, query_y = classification_tasks(n_tasks=4, dtype="float32")
    data = tf.data.Dataset.from_tensors((inputs, query_y)).repeat()
    learner.fit(data, steps_per_epoch=3, verbose=0)

    custom = {"Residual": Residual}
    expected = learner(inputs).numpy()
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras", custom_objects=custom)
    np.testing.assert_array_equal(loaded(inputs).numpy(), expected)
    options = ("inner_learning_rate", "inner_steps", "test_inner_steps", "batch_norm")
    assert [getattr(loaded, o) for o in options] == [0.1, 2, 2, batch_norm]

    adapted = learner.adapt(inputs["support_x"][1], inputs["support_y"][1])
    predictions = adapted.predict(inputs["query_x"][1], verbose=0)
    np.testing.assert_allclose(predictions, expected[1], rtol=1e-4, atol=1e-5)
    adapted.save(tmp_path / "adapted.keras")
    reloaded = keras.models.load_model(tmp_path / "adapted.keras", custom_objects=custom)
    np.testing.assert_array_equal(reloaded.predict(inputs["query_x"][1], verbose=0), predictions)

    # Training goes on from the file as it does in memory; and leaves what was adapted alone.
    # A file does not hold the state of dropout's seeds.
    for a, b in zip(learner.non_trainable_variables, loaded.non_trainable_variables, strict=True):
        b.assign(a)
    for model in (learner, loaded):
        model.fit(data, steps_per_epoch=2, verbose=0)
    for a, b in zip(learner.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(adapted.predict(inputs["query_x"][1], verbose=0), predictions)


class Bare(keras.Model):
    """As many write them: neither **kwargs nor get_config."""

    def __init__(self, width, batch_norm):
        super().__init__()
        self.hidden = keras.layers.Dense(width, activation="relu")
        self.norm = keras.layers.BatchNormalization() if batch_norm else None
        self.out = keras.layers.Dense(3)

    def call(self, x, training=False):
        x = self.hidden(x)
        return self.out(x if self.norm is None else self.norm(x, training=training))


@pytest.mark.parametrize(
    ("batch_norm", "with_norm"),
    [
        *((mode, True) for mode in ("transductive", "running")),
        *(pytest.param(mode, False, marks=pytest.mark.large) for mode in MODES),
        pytest.param("support", True, marks=pytest.mark.large),
    ],
)
def test_a_subclass_that_keras_cannot_copy_adapts_all_the_same(batch_norm, with_norm):
    keras.utils.set_random_seed(0)
    learner = tfmeta.MAML(
        Bare(7, with_norm), inner_learning_rate=0.1, inner_steps=2, batch_norm=batch_norm
    )
    inputs, query_y = classification_tasks(dtype="float32")
    adapted = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
    expected = learner(inputs)[0].numpy()
    learner.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    learner.train_on_batch(inputs, query_y)
    predictions = adapted.predict(inputs["query_x"][0], verbose=0)
    np.testing.assert_allclose(predictions, expected, rtol=1e-4, atol=1e-5)


def test_dropout_masks_differ_between_tasks_steps_and_calls():
    inputs = keras.Input((1000,))
    x = keras.layers.Dropout(0.5, seed=1)(inputs)
    learner = tfmeta.MAML(
        keras.Model(inputs, keras.layers.Dense(2)(x)), inner_learning_rate=0.1, inner_steps=3
    )
    seed_state = learner.non_trainable_variables[0]
    # The masks show in the gradient of the kernel: ones in, so that it is 0 where dropped.
    masks = []
    original = learner.network.layers[1].call

    def spy(x, training=False):
        y = original(x, training=training)
        masks.append(np.asarray(y)[0] > 0)
        return y

    learner.network.layers[1].call = spy
    ones = np.ones((2, 1, 1000), "float32")
    episode = {"support_x": ones, "support_y": np.zeros((2, 1), int), "query_x": ones}
    for _ in range(2):
        learner(episode, training=True)
    assert len(masks) == 2 * 2 * 4  # Two calls, two tasks, three steps and the queries.
    for i, mask in enumerate(masks):
        assert 400 < mask.sum() < 600
        for other in masks[:i]:
            assert 400 < (mask != other).sum() < 600
    assert seed_state.numpy()[1] == 2 * 4
    masks.clear()
    learner(episode, training=False)
    assert all(mask.all() for mask in masks)
    assert seed_state.numpy()[1] == 2 * 4


# === Batch norm ===


def norm_only_learner(batch_norm, trainable=True, momentum=0.9):
    norm = keras.layers.BatchNormalization(momentum=momentum, trainable=trainable)
    # Inner steps need a weight that they may change. It stays what it is, up to rounding.
    identity = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")
    network = keras.Sequential([keras.Input((3,)), norm, identity])
    return tfmeta.MAML(
        network, inner_learning_rate=1e-8, inner_steps=1, batch_norm=batch_norm, inner_loss="mse"
    )


def norm_episode(n_tasks=2):
    return {
        "support_x": RNG.normal(2, 3, size=(n_tasks, 6, 3)).astype("float32"),
        "support_y": RNG.normal(size=(n_tasks, 6, 3)).astype("float32"),
        "query_x": RNG.normal(-1, 2, size=(n_tasks, 8, 3)).astype("float32"),
    }


def normalised(x, mean, variance):
    return (x - mean) / np.sqrt(variance + 1e-3)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
def test_each_set_is_normalised_by_the_statistics_of_its_mode(batch_norm, training):
    learner, episode = norm_only_learner(batch_norm), norm_episode()
    by = episode["query_x" if batch_norm == "transductive" else "support_x"]
    expected = normalised(
        episode["query_x"], by.mean(axis=1, keepdims=True), by.var(axis=1, keepdims=True)
    )
    before = learner.get_weights()
    np.testing.assert_allclose(learner(episode, training=training), expected, atol=1e-5)
    for a, b in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_running_mode_updates_its_averages_with_the_mean_over_tasks_as_keras_does():
    learner, episode = norm_only_learner("running"), norm_episode()
    query = episode["query_x"]
    expected = normalised(query, query.mean(1, keepdims=True), query.var(1, keepdims=True))
    np.testing.assert_allclose(learner(episode, training=True), expected, atol=1e-5)
    moving_mean = np.zeros((2, 3))
    for x in (episode["support_x"], query):
        moving_mean = 0.9 * moving_mean + 0.1 * x.mean(axis=1)
    norm = learner.network.layers[0]
    np.testing.assert_allclose(norm.moving_mean, moving_mean.mean(axis=0), rtol=1e-5)
    predicted = learner(episode, training=False)
    expected = normalised(query, norm.moving_mean.numpy(), norm.moving_variance.numpy())
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


@pytest.mark.parametrize("batch_norm", ["transductive", "support", "running"])
def test_a_frozen_batch_norm_keeps_to_its_averages(batch_norm):
    learner, episode = norm_only_learner(batch_norm, trainable=False), norm_episode()
    expected = normalised(episode["query_x"], 0, 1)
    for training in (False, True):
        np.testing.assert_allclose(learner(episode, training=training), expected, atol=1e-5)


@pytest.mark.parametrize("batch_norm", ["support", "running"])
@pytest.mark.usefixtures("float64")
def test_outside_the_transductive_mode_queries_do_not_affect_each_other(batch_norm):
    learner = tfmeta.MAML(
        smooth_network(), inner_learning_rate=0.3, inner_steps=2, batch_norm=batch_norm
    )
    inputs, _ = classification_tasks()
    alone = learner({**inputs, "query_x": inputs["query_x"][:, :1]})
    np.testing.assert_allclose(learner(inputs)[:, :1], alone, rtol=1e-10)
    adapted = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
    assert not isinstance(adapted, tfmeta.learners.AdaptedModel)
    one_by_one = adapted.predict(inputs["query_x"][0], batch_size=1, verbose=0)
    np.testing.assert_allclose(one_by_one, learner(inputs)[0], rtol=1e-10)


@pytest.mark.parametrize("batch_norm", ["transductive", "support", "running"])
@pytest.mark.usefixtures("float64")
def test_padding_changes_nothing(batch_norm):
    keras.utils.set_random_seed(0)
    inputs, query_y = classification_tasks()
    padded = {
        "support_x": np.pad(inputs["support_x"], [(0, 0), (0, 3), (0, 0)], constant_values=9),
        "support_y": np.pad(inputs["support_y"], [(0, 0), (0, 3)]),
        "query_x": np.pad(inputs["query_x"], [(0, 0), (0, 2), (0, 0)], constant_values=-7),
        "support_mask": np.pad(np.ones((2, 6)), [(0, 0), (0, 3)]),
        "query_mask": np.pad(np.ones((2, 6)), [(0, 0), (0, 2)]),
    }
    weights = padded["query_mask"]
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    network = smooth_network()
    start = network.get_weights()
    results = []
    for data in ((inputs, query_y), (padded, np.pad(query_y, [(0, 0), (0, 2)]), weights)):
        network.set_weights(start)
        learner = tfmeta.MAML(
            network, inner_learning_rate=0.3, inner_steps=2, batch_norm=batch_norm
        )
        predictions = learner(data[0]).numpy()[:, :6]
        learner.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss)
        learner.train_step(data)
        results.append((predictions, network.get_weights()))
    # Keras's masked batch norm divides by the count plus 1e-7.
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5, atol=1e-7)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


# === Bad input ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_learning_rate": 0.0}, "inner_learning_rate must be > 0"),
        ({"inner_learning_rate": float("nan")}, "inner_learning_rate must be > 0"),
        ({"inner_steps": -1}, "inner_steps must be an integer ≥ 0"),
        ({"test_inner_steps": 1.5}, "test_inner_steps must be an integer ≥ 0"),
        ({"batch_norm": "batch"}, 'batch_norm must be "transductive"'),
        ({"inner_loss": "no such loss"}, "no such loss"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.MAML(tfmeta.backbones.mlp(), **options)


def test_a_network_that_is_no_keras_model_is_refused():
    with pytest.raises(ValueError, match=r"network must be a keras\.Model; got Dense"):
        tfmeta.MAML(keras.layers.Dense(3))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 4)), [0, 1, 3], "Labels must be from 0 to 2, .* got 0 to 3"),
        (np.zeros((3, 4)), [0, 1, -1], "got -1 to 1"),
        (np.zeros((3, 4)), [0.0, 1.0, 2.0], "must be integer labels"),
        (np.zeros((3, 4)), [0, 1], "one row per example"),
        (np.zeros((0, 4)), [], "at least one example"),
        (np.full((3, 4), np.nan), [0, 1, 2], "12 of its 12 values are NaN or infinite"),
        (np.array([["a"] * 4] * 3), [0, 1, 2], "must hold numbers"),
    ],
)
def test_adapt_refuses_a_bad_support_set(x, y, message):
    learner = tfmeta.MAML(tfmeta.backbones.linear(3, (4,)))
    with pytest.raises(ValueError, match=message):
        learner.adapt(x, np.asarray(y, dtype=None if len(y) else int))
