"""RelationNetwork against the paper's equations, worked out in NumPy.

Sung et al. (2018): (1) r_kj = g(C(Σ_i f(x_i), f(x_j))), i over the shots of class k, where C
concatenates in channels, the support's features first; (2) min Σ_kj (r_kj - 1(y_j = k))².
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.learners.relation_network import OneHotSquaredError

RNG = np.random.default_rng(0)
EPSILON, MOMENTUM = 0.01, 0.9


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def randomise(model):
    """Random weights, except that variances and scales stay positive."""
    for variable in model.variables:
        values = RNG.normal(size=variable.shape)
        positive = variable.name in ("moving_variance", "gamma")
        variable.assign(0.5 + values**2 if positive else values)


def dense_encoder():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh")])


def dense_module(norm=False):
    layers = [keras.Input((6,)), keras.layers.Dense(4, activation="tanh")]
    if norm:
        layers.append(keras.layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM))
    return keras.Sequential([*layers, keras.layers.Dense(1, activation="sigmoid")])


def dense_learner(norm=False, **options):
    learner = tfmeta.RelationNetwork(dense_encoder(), dense_module(norm), **options)
    randomise(learner)
    return learner


# === The equations ===


def sums_of_shots(features, labels):
    return [
        sum(f for f, label in zip(features, labels, strict=True) if label == k)
        for k in range(max(labels) + 1)
    ]


def pairs(classes, features):
    """`[N · n_way, 2d]`: every example with every class."""
    return np.array([np.concatenate([c, f], axis=-1) for f in features for c in classes])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def moments(x):
    return x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0)


def expected_scores(weights, support_x, support_y, query_x):
    """Scores `[Q, n_way]` of one task by the dense learner without batch norm."""
    kernel, bias, hidden_kernel, hidden_bias, score_kernel, score_bias = weights
    support, queries = (np.tanh(x @ kernel + bias) for x in (support_x, query_x))
    scores = np.zeros((len(query_x), max(support_y) + 1))
    for k, shots in enumerate(sums_of_shots(support, support_y)):
        for j, query in enumerate(queries):
            hidden = np.tanh(np.concatenate([shots, query]) @ hidden_kernel + hidden_bias)
            scores[j, k] = sigmoid(hidden @ score_kernel + score_bias)[0]
    return scores


def tasks(labels=(1, 0, 2, 2, 1, 2), n_query=4, n_tasks=2):
    inputs = {
        "support_x": RNG.normal(size=(n_tasks, len(labels), 4)),
        "support_y": np.array([labels, labels[::-1]][:n_tasks]),
        "query_x": RNG.normal(size=(n_tasks, n_query, 4)),
    }
    return inputs, RNG.integers(max(labels) + 1, size=(n_tasks, n_query))


def by_task(inputs):
    return list(zip(inputs["support_x"], inputs["support_y"], inputs["query_x"], strict=True))


# === Predictions ===


@pytest.mark.parametrize("labels", [(0, 1, 2), (2, 0, 1, 1, 0, 2), (1, 1, 2, 0, 1)])
@pytest.mark.usefixtures("float64")
def test_scores_are_those_of_the_equations(labels):
    learner = dense_learner()
    inputs, _ = tasks(labels)
    expected = [expected_scores(learner.get_weights(), *task) for task in by_task(inputs)]
    assert np.ptp(expected) > 1e-3
    for training in (False, True):
        np.testing.assert_allclose(
            learner(inputs, training=training), expected, rtol=1e-12, atol=1e-12
        )
    for (x, y, q), scores in zip(by_task(inputs), expected, strict=True):
        np.testing.assert_allclose(learner.adapt(x, y)(q), scores, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_maps_are_concatenated_in_channels():
    encoder = keras.Sequential([keras.Input((2, 3, 2)), keras.layers.Conv2D(4, 1)])
    module = keras.Sequential(
        [keras.Input((2, 3, 8)), keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")]
    )
    learner = tfmeta.RelationNetwork(encoder, module)
    randomise(learner)
    kernel, bias, score_kernel, score_bias = learner.get_weights()
    x, q = RNG.normal(size=(5, 2, 3, 2)), RNG.normal(size=(3, 2, 3, 2))
    y = np.array([0, 1, 2, 1, 1])
    support, queries = (np.einsum("nhwc,cf->nhwf", v, kernel[0, 0]) + bias for v in (x, q))
    stacked = pairs(sums_of_shots(support, y), queries)
    assert stacked.shape == (9, 2, 3, 8)
    expected = sigmoid(stacked.reshape(9, -1) @ score_kernel + score_bias).reshape(3, 3)
    inputs = {"support_x": x[None], "support_y": y[None], "query_x": q[None]}
    np.testing.assert_allclose(learner(inputs)[0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(learner.adapt(x, y)(q), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_one_learner_trains_and_tests_with_different_ways():
    learner = dense_learner()
    learner.compile("sgd", learner.default_loss())
    inputs, query_y = tasks(labels=(0, 1, 2, 3, 4))
    learner.fit(inputs, query_y, shuffle=False, verbose=0)
    for labels in ((0, 1), (6, 5, 4, 3, 2, 1, 0)):
        inputs, _ = tasks(labels)
        x, y, q = by_task(inputs)[0]
        expected = expected_scores(learner.get_weights(), x, y, q)
        np.testing.assert_allclose(learner.adapt(x, y)(q), expected, rtol=1e-12, atol=1e-12)


# === The loss ===

SCORES = [[0.1, 0.7, 0.4], [0.9, 0.2, 0.0]]
LABELS = [2, 0]
# Over three classes: 0.01 + 0.49 + 0.36 and 0.01 + 0.04 + 0.
PER_QUERY = [0.86 / 3, 0.05 / 3]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0.91 / 6),
        ({"reduction": "sum_over_batch_size"}, 0.91 / 6),
        ({"reduction": "sum"}, 0.91 / 3),
        ({"reduction": "none"}, PER_QUERY),
    ],
)
@pytest.mark.parametrize("label_type", ["int32", "float64"])
@pytest.mark.usefixtures("float64")
def test_loss_by_hand(options, expected, label_type):
    loss = OneHotSquaredError(**options)
    labels = np.array(LABELS, label_type)
    np.testing.assert_allclose(loss(labels, np.array(SCORES)), expected, rtol=1e-14)
    loss = OneHotSquaredError.from_config(loss.get_config())
    # As `fit` calls it, with a leading dimension of tasks.
    expected = [expected] if options.get("reduction") == "none" else expected
    np.testing.assert_allclose(loss(labels[None], np.array([SCORES])), expected, rtol=1e-14)


@pytest.mark.usefixtures("float64")
def test_weighted_loss_by_hand():
    loss = OneHotSquaredError()(LABELS, np.array(SCORES), sample_weight=[0.0, 3.0])
    assert float(loss) == pytest.approx(3 * PER_QUERY[1] / 2, rel=1e-14)


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 2 / 3), ("sum_over_batch_size", 2 / 6)])
@pytest.mark.usefixtures("float64")
def test_gradient_of_the_loss_by_hand(reduction, factor):
    scores = tf.constant(np.array(SCORES))
    with tf.GradientTape() as tape:
        tape.watch(scores)
        loss = OneHotSquaredError(reduction=reduction)(LABELS, scores)
    expected = factor * np.array([[0.1, 0.7, -0.6], [-0.1, 0.2, 0.0]])
    np.testing.assert_allclose(tape.gradient(loss, scores), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.usefixtures("float64")
def test_meta_gradient_is_the_finite_difference_of_the_equations():
    learner = dense_learner()
    assert learner.output_kind == "scores"
    inputs, query_y = tasks()
    learner.compile(keras.optimizers.SGD(1.0), learner.default_loss(), run_eagerly=True)
    start = learner.get_weights()
    learner.train_step((inputs, query_y))
    gradient = [a - b for a, b in zip(start, learner.get_weights(), strict=True)]

    def loss(weights):
        scores = np.array([expected_scores(weights, *task) for task in by_task(inputs)])
        return ((scores - np.eye(3)[query_y]) ** 2).mean()

    for i, analytic in enumerate(gradient):
        # A direction for each weight matrix, so that an error in one cannot hide in another.
        direction = RNG.normal(size=analytic.shape)
        up, down = (
            loss([*start[:i], start[i] + h * direction, *start[i + 1 :]]) for h in (1e-5, -1e-5)
        )
        assert (analytic * direction).sum() == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-9)


# === Regression ===


def expected_values(learner, x, targets, q, exists=None, moments_of=None):
    """The mean of the targets, weighted by the scores of all pairs, of dense modules."""
    kernel, bias = learner.encoder.get_weights()
    support, queries = (np.tanh(v @ kernel + bias) for v in (x, q))
    exists = np.ones(len(x)) if exists is None else exists
    hidden_kernel, hidden_bias, *_ = learner.relation_module.get_weights()
    score_kernel, score_bias = learner.relation_module.layers[-1].get_weights()

    def hidden_of(examples):
        return np.tanh(pairs(support, examples) @ hidden_kernel + hidden_bias)

    hidden = hidden_of(queries)
    if moments_of is not None:
        examples = support if moments_of == "support" else queries
        of_examples = exists if moments_of == "support" else np.ones(len(queries))
        real_pairs = np.outer(of_examples, exists).ravel() > 0
        mean, variance = moments(hidden_of(examples)[real_pairs])
        gamma, beta = learner.relation_module.get_weights()[2:4]
        hidden = gamma * (hidden - mean) / np.sqrt(variance + EPSILON) + beta
    scores = sigmoid(hidden @ score_kernel + score_bias).reshape(len(q), len(x))
    values = np.zeros((len(q), *targets.shape[1:]))
    for j in range(len(q)):
        weights = exists * (scores[j] + 1e-7)
        for i in range(len(x)):
            values[j] += weights[i] / weights.sum() * targets[i]
    return values


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.usefixtures("float64")
def test_regression_is_the_mean_of_the_targets_weighted_by_scores(n_targets):
    learner = dense_learner(n_targets=n_targets)
    inputs, _ = tasks(n_tasks=1)
    x, q = inputs["support_x"][0], inputs["query_x"][0]
    targets = 10 * RNG.normal(size=(len(x), n_targets))
    expected = expected_values(learner, x, targets, q)
    assert np.ptp(expected, axis=0).min() > 1e-2
    assert learner.output_kind == "values"
    model = learner.adapt(x, targets)
    np.testing.assert_allclose(model(q), expected, rtol=1e-11, atol=1e-11)
    if n_targets == 1:
        np.testing.assert_array_equal(learner.adapt(x, targets[:, 0])(q), model(q))
    # Four more examples are padding.
    padded = {
        "support_x": np.concatenate([x, 5 * x[:4]])[None],
        "support_y": np.concatenate([targets, 1e3 * targets[:4]])[None],
        "query_x": q[None],
        "support_mask": (np.arange(10) < 6).astype(float)[None],
    }
    np.testing.assert_allclose(learner(padded)[0], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("batch_norm", ["transductive", "support"])
@pytest.mark.usefixtures("float64")
def test_batch_norm_in_regression_sees_no_padding(batch_norm):
    learner = dense_learner(norm=True, batch_norm=batch_norm, n_targets=1)
    inputs, _ = tasks(n_tasks=1)
    x, q = inputs["support_x"], inputs["query_x"]
    targets, exists = RNG.normal(size=(1, 6, 1)), np.array([1.0, 1, 0, 1, 1, 0])
    padded = {"support_x": x, "support_y": targets, "query_x": q, "support_mask": exists[None]}
    expected = expected_values(learner, x[0], targets[0], q[0], exists, batch_norm)
    np.testing.assert_allclose(learner(padded)[0], expected, rtol=1e-11, atol=1e-12)
    x, targets = x[0, exists > 0], targets[0, exists > 0]
    np.testing.assert_allclose(learner.adapt(x, targets)(q[0]), expected, rtol=1e-11, atol=1e-12)


def test_a_query_that_is_related_to_nothing_gets_the_mean_target():
    module = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(1, kernel_initializer="zeros")]
    )
    module.layers[-1].bias.assign([-3.0])
    learner = tfmeta.RelationNetwork(dense_encoder(), module, n_targets=1)
    model = learner.adapt(np.zeros((3, 4), "float32"), np.array([[1.0], [2.0], [6.0]], "float32"))
    np.testing.assert_allclose(model(np.ones((2, 4), "float32")), [[3.0]] * 2, rtol=1e-6)


def test_vectors_have_a_relation_module_of_their_own():
    learner = tfmeta.RelationNetwork(dense_encoder())
    assert learner.relation_module.input_shape == (None, 6)


def test_values_and_labels_are_not_confused():
    inputs, _ = tasks(n_tasks=1)
    inputs["support_y"], query_y = np.zeros((1, 6, 1)), np.zeros((1, 4, 1))
    learner = dense_learner()
    learner.compile("sgd", learner.default_loss(), run_eagerly=True)
    with pytest.raises(ValueError, match="RelationNetwork learns classes"):
        learner.train_on_batch(inputs, query_y)
    learner = dense_learner(n_targets=1)
    learner.compile("sgd", OneHotSquaredError(), run_eagerly=True)
    with pytest.raises(ValueError, match=r"labels of shape \(1, 4\) .* got \(1, 4, 1\)"):
        learner.train_on_batch(inputs, query_y)
    learner.compile("sgd")
    assert isinstance(learner.loss, keras.losses.MeanSquaredError)
    with pytest.raises(ValueError, match=r"must be \[S, 1\]; got a task's of shape \(6, 2\)"):
        learner.adapt(inputs["support_x"][0], np.zeros((6, 2)))


# === The relation module's batch norm ===


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch_norm", ["transductive", "support", "running"])
@pytest.mark.usefixtures("float64")
def test_batch_norm_of_the_relation_module(batch_norm, training):
    learner = dense_learner(norm=True, batch_norm=batch_norm)
    inputs, _ = tasks()
    encoder_kernel, encoder_bias = learner.encoder.get_weights()
    hidden_kernel, hidden_bias, gamma, beta, *_ = learner.relation_module.get_weights()
    score_kernel, score_bias = learner.relation_module.layers[-1].get_weights()
    norm = learner.relation_module.layers[1]
    moving = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    expected, averages = [], []
    for x, y, q in by_task(inputs):
        support, queries = (np.tanh(v @ encoder_kernel + encoder_bias) for v in (x, q))
        classes = sums_of_shots(support, y)
        of_support, of_queries = (
            np.tanh(pairs(classes, f) @ hidden_kernel + hidden_bias) for f in (support, queries)
        )
        if batch_norm == "running" and not training:
            mean, variance = moving
        else:
            mean, variance = moments(of_support if batch_norm == "support" else of_queries)
        hidden = gamma * (of_queries - mean) / np.sqrt(variance + EPSILON) + beta
        expected.append(sigmoid(hidden @ score_kernel + score_bias).reshape(len(q), -1))
        averages.append(
            [
                MOMENTUM * old + (1 - MOMENTUM) * new
                for old, new in zip(moving, (mean, variance), strict=True)
            ]
        )
    np.testing.assert_allclose(learner(inputs, training=training), expected, rtol=1e-11, atol=1e-12)
    # In training, each task moves the averages from the same start, and the tasks' mean is kept.
    updated = np.mean(averages, axis=0) if batch_norm == "running" and training else moving
    np.testing.assert_allclose(norm.moving_mean, updated[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(norm.moving_variance, updated[1], rtol=1e-11, atol=1e-12)
    if not training:
        for (x, y, q), scores in zip(by_task(inputs), expected, strict=True):
            np.testing.assert_allclose(learner.adapt(x, y)(q), scores, rtol=1e-11, atol=1e-12)


# === Modules ===


def test_the_published_module_fits_the_encoder():
    for size, padding, units in ((28, "same", 64), (84, "valid", 576)):
        encoder = tfmeta.backbones.relation_encoder((size, size, 3))
        module = tfmeta.RelationNetwork(encoder).relation_module
        assert module.input_shape == (None, *encoder.output_shape[1:3], 128)
        assert module.get_layer("conv1").padding == padding
        assert module.get_layer("hidden").kernel.shape == (units, 8)
    module = tfmeta.RelationNetwork(tfmeta.backbones.relation_encoder((28, 28, 1), 5))
    assert module.relation_module.input_shape == (None, 5, 5, 10)


def test_published_modules_train_on_large_images():
    keras.utils.set_random_seed(0)
    learner = tfmeta.RelationNetwork(tfmeta.backbones.relation_encoder((84, 84, 3)))
    learner.compile(keras.optimizers.SGD(1.0), learner.default_loss(), run_eagerly=True)
    inputs = {
        "support_x": RNG.normal(size=(1, 2, 84, 84, 3)).astype("float32"),
        "support_y": np.array([[1, 0]]),
        "query_x": RNG.normal(size=(1, 1, 84, 84, 3)).astype("float32"),
    }
    scores = learner(inputs).numpy()
    assert scores.shape == (1, 1, 2)
    expected = ((scores[0, 0] - [0, 1]) ** 2).mean()
    before = [v.numpy() for v in learner.trainable_variables]
    assert learner.train_on_batch(inputs, np.array([[1]])) == pytest.approx(expected, rel=1e-4)
    for variable, old in zip(learner.trainable_variables, before, strict=True):
        change = np.abs(variable.numpy() - old).max()
        assert 0 < change < np.inf, variable.path


@keras.saving.register_keras_serializable("test_relation_network")
class Subclassed(keras.Model):
    """Layers are built when it is first called, and no shape is told."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units, activation="tanh")

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@pytest.mark.parametrize("built", [False, pytest.param(True, marks=pytest.mark.large)])
@pytest.mark.usefixtures("float64")
def test_a_subclassed_encoder(built, tmp_path):
    encoder = Subclassed(3)
    inputs, query_y = tasks()
    if built:
        encoder(inputs["query_x"][0])
    learner = tfmeta.RelationNetwork(encoder, dense_module())
    learner.compile("sgd", learner.default_loss())
    learner.fit(inputs, query_y, verbose=0)
    randomise(learner)
    weights = [*encoder.get_weights(), *learner.relation_module.get_weights()]
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    for x, y, q in by_task(inputs):
        expected = expected_scores(weights, x, y, q)
        np.testing.assert_allclose(learner.adapt(x, y)(q), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(loaded.adapt(x, y)(q), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_a_subclassed_relation_module():
    module = keras.Sequential([Subclassed(4), keras.layers.Dense(1, activation="sigmoid")])
    learner = tfmeta.RelationNetwork(dense_encoder(), module)
    randomise(learner)
    inputs, _ = tasks(n_tasks=1)
    ((x, y, q),) = by_task(inputs)
    expected = expected_scores(learner.get_weights(), x, y, q)
    np.testing.assert_allclose(learner.adapt(x, y)(q), expected, rtol=1e-12, atol=1e-12)


# === Errors ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": keras.layers.Dense(3)}, "encoder must be a keras.Model; got Dense"),
        ({"relation_module": "published"}, "relation_module must be a keras.Model; got str"),
        (
            {
                "encoder": keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2)]),
                "relation_module": None,
            },
            r"features have shape \(4, 2\): give a relation_module=",
        ),
        ({"n_targets": 0}, "n_targets must be an integer ≥ 1; got 0"),
        ({"batch_norm": True}, 'must be "transductive", "support" or "running"; got True'),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.RelationNetwork(
            **{"encoder": dense_encoder(), "relation_module": dense_module(), **options}
        )


def test_maps_too_small_for_the_published_module_are_refused():
    encoder = keras.Sequential([keras.Input((3, 3, 1)), keras.layers.Conv2D(2, 1)])
    with pytest.raises(ValueError, match=r"must be .* of 4×4 or more .*; got \(3, 3, 2\)"):
        tfmeta.RelationNetwork(encoder)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2], r"Every class from 0 to 2 needs a support example; none has the label 1\."),
        ([0.5, 1.5, 2.5], r"must be integer labels \[S\]; got float64 \(3,\)"),
        ([[0.5], [1.5], [2.5]], r"RelationNetwork learns classes.* got a task's of shape \(3, 1\)"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        dense_learner().adapt(np.zeros((3, 4), "float32"), np.array(labels))
