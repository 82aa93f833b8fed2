"""PrototypicalNetwork against the paper's equations, worked out in NumPy.

Snell, Swersky, Zemel (2017): (1) c_k = mean of f(x_i) over the examples of class k;
(2) p(y = k | x) = softmax_k(-d(f(x), c_k)), d the squared Euclidean distance.
"""

import keras
import numpy as np
import pytest

import tfmeta

RNG = np.random.default_rng(0)
DISTANCES = ["euclidean", "cosine"]


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def tanh_encoder():
    encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh")])
    encoder.set_weights([RNG.normal(size=w.shape) for w in encoder.get_weights()])
    return encoder


def encode(weights, x):
    kernel, bias = weights
    return np.tanh(x @ kernel + bias)


def identity_encoder():
    return keras.Sequential([keras.Input((2,)), keras.layers.Identity()])


def logits(support, labels, queries, distance="euclidean"):
    """Logits `[Q, n_way]` of one task, entry by entry, from features."""
    result = np.zeros((len(queries), max(labels) + 1))
    for k in range(max(labels) + 1):
        examples = [f for f, label in zip(support, labels, strict=True) if label == k]
        prototype = sum(examples) / len(examples)
        for q, query in enumerate(queries):
            if distance == "euclidean":
                result[q, k] = -sum((a - b) ** 2 for a, b in zip(query, prototype, strict=True))
            else:
                norms = np.sqrt((query**2).sum()) * np.sqrt((prototype**2).sum())
                result[q, k] = query @ prototype / norms
    return result


def cross_entropy(values, labels):
    p = np.exp(values) / np.exp(values).sum(axis=-1, keepdims=True)
    return -np.log(np.take_along_axis(p, np.asarray(labels)[..., None], axis=-1)).mean()


def tasks(n_way, n_shot=2, n_query=2, n_tasks=2, shape=(4,)):
    labels = np.tile(np.arange(n_way), (n_tasks, n_shot))
    inputs = {
        "support_x": RNG.normal(size=(n_tasks, n_way * n_shot, *shape)),
        "support_y": RNG.permuted(labels, axis=1),
        "query_x": RNG.normal(size=(n_tasks, n_way * n_query, *shape)),
    }
    return inputs, np.tile(np.arange(n_way), (n_tasks, n_query))


def expected_logits(weights, inputs, distance="euclidean"):
    return np.stack(
        [
            logits(encode(weights, x), y, encode(weights, q), distance)
            for x, y, q in zip(
                inputs["support_x"], inputs["support_y"], inputs["query_x"], strict=True
            )
        ]
    )


# === Predictions ===


@pytest.mark.parametrize(
    ("distance", "query", "expected"),
    [
        # To (1, 0): 0² + 2²; to (0, 4): 1² + 2².
        ("euclidean", (1.0, 2.0), (-4.0, -5.0)),
        ("cosine", (3.0, 4.0), (0.6, 0.8)),
    ],
)
@pytest.mark.usefixtures("float64")
def test_two_classes_by_hand(distance, query, expected):
    learner = tfmeta.PrototypicalNetwork(identity_encoder(), distance=distance)
    x = np.array([[0.0, 0.0], [0.0, 4.0], [2.0, 0.0]])
    model = learner.adapt(x, np.array([0, 1, 0]))
    np.testing.assert_allclose(model(np.array([query])), [expected], rtol=1e-14)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("labels", [(0, 1, 2), (2, 0, 1, 1, 0, 2, 1, 2, 0), (1, 1, 2, 0, 1, 2)])
@pytest.mark.usefixtures("float64")
def test_logits_are_those_of_the_equations(distance, labels):
    encoder = tanh_encoder()
    learner = tfmeta.PrototypicalNetwork(encoder, distance=distance)
    inputs = {
        "support_x": RNG.normal(size=(2, len(labels), 4)),
        "support_y": np.array([labels, labels[::-1]]),
        "query_x": RNG.normal(size=(2, 5, 4)),
    }
    expected = expected_logits(encoder.get_weights(), inputs, distance)
    for training in (False, True):
        np.testing.assert_allclose(
            learner(inputs, training=training), expected, rtol=1e-12, atol=1e-12
        )
    for t in range(2):
        model = learner.adapt(inputs["support_x"][t], inputs["support_y"][t])
        np.testing.assert_allclose(model(inputs["query_x"][t]), expected[t], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.usefixtures("float64")
def test_maps_are_compared_as_vectors(distance):
    encoder = keras.Sequential([keras.Input((3, 2, 2)), keras.layers.Conv2D(3, 1)])
    kernel, bias = (RNG.normal(size=w.shape) for w in encoder.get_weights())
    encoder.set_weights([kernel, bias])
    inputs, _ = tasks(n_way=3, n_tasks=1, shape=(3, 2, 2))
    x, y, q = (inputs[name][0] for name in ("support_x", "support_y", "query_x"))
    support, query = (
        (np.einsum("nhwc,cf->nhwf", images, kernel[0, 0]) + bias).reshape(len(images), 3 * 2 * 3)
        for images in (x, q)
    )
    expected = logits(support, y, query, distance)
    learner = tfmeta.PrototypicalNetwork(encoder, distance=distance)
    np.testing.assert_allclose(learner(inputs)[0], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(learner.adapt(x, y)(q), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_one_learner_trains_and_tests_with_different_ways():
    encoder = tanh_encoder()
    learner = tfmeta.PrototypicalNetwork(encoder)
    learner.compile("sgd", learner.default_loss())
    before = encoder.get_weights()
    inputs, query_y = tasks(n_way=5, n_tasks=4)
    history = learner.fit(inputs, query_y, batch_size=4, shuffle=False, verbose=0)
    expected = cross_entropy(expected_logits(before, inputs), query_y)
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-10)
    trained = encoder.get_weights()
    assert np.abs(trained[0] - before[0]).max() > 1e-4
    for n_way in (3, 7):
        inputs, query_y = tasks(n_way=n_way)
        expected = expected_logits(trained, inputs)
        loss = learner.evaluate(inputs, query_y, verbose=0)
        assert loss == pytest.approx(cross_entropy(expected, query_y), rel=1e-10)
        model = learner.adapt(inputs["support_x"][0], inputs["support_y"][0])
        assert model.output_shape == (None, n_way)
        np.testing.assert_allclose(model(inputs["query_x"][0]), expected[0], rtol=1e-12, atol=1e-12)


# === The meta-gradient ===


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.usefixtures("float64")
def test_meta_gradient_is_the_finite_difference_of_the_equations(distance):
    encoder = tanh_encoder()
    learner = tfmeta.PrototypicalNetwork(encoder, distance=distance)
    inputs, query_y = tasks(n_way=3)
    learner.compile(keras.optimizers.SGD(1.0), learner.default_loss(), run_eagerly=True)
    start = encoder.get_weights()
    learner.train_step((inputs, query_y))
    gradient = [a - b for a, b in zip(start, encoder.get_weights(), strict=True)]

    def loss(weights):
        return cross_entropy(expected_logits(weights, inputs, distance), query_y)

    for i, analytic in enumerate(gradient):
        for index in np.ndindex(analytic.shape):
            moved = [[w.copy() for w in start] for _ in range(2)]
            moved[0][i][index] += 1e-5
            moved[1][i][index] -= 1e-5
            numeric = (loss(moved[0]) - loss(moved[1])) / 2e-5
            assert analytic[index] == pytest.approx(numeric, rel=1e-6, abs=1e-9)


# === Errors ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "manhattan"}, 'distance must be "euclidean" or "cosine"; got \'manhattan\''),
        ({"batch_norm": "batch"}, 'must be "transductive", "support" or "running"; got \'batch\''),
        ({"encoder": keras.layers.Dense(3)}, "encoder must be a keras.Model; got Dense"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.PrototypicalNetwork(**{"encoder": identity_encoder(), **options})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2], r"Every class from 0 to 2 needs a support example; none has the label 1\."),
        ([4, 4, 2], r"from 0 to 4 needs a support example; none has the labels 0, 1, 3\."),
        ([0, 1, -1], "Labels must be from 0; got -1 to 1"),
        ([0.0, 1.0, 2.0], r"must be integer labels \[S\]; got float64 \(3,\)"),
        ([[0.5], [1.5], [2.5]], r"PrototypicalNetwork learns classes.* got a task's of shape"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    learner = tfmeta.PrototypicalNetwork(identity_encoder())
    with pytest.raises(ValueError, match=message):
        learner.adapt(np.zeros((3, 2), "float32"), np.array(labels))


def test_training_on_regression_targets_is_refused():
    learner = tfmeta.PrototypicalNetwork(identity_encoder())
    learner.compile("sgd", "mse")
    inputs = {
        "support_x": np.zeros((1, 3, 2), "float32"),
        "support_y": np.zeros((1, 3, 1), "float32"),
        "query_x": np.zeros((1, 3, 2), "float32"),
    }
    with pytest.raises(ValueError, match="PrototypicalNetwork learns classes: support_y must be"):
        learner.fit(inputs, np.zeros((1, 3, 1)), verbose=0)
