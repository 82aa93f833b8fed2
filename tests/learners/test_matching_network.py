"""MatchingNetwork against the paper's equations, worked out in NumPy.

Vinyals et al. (2016): (1) ŷ = Σ_i a(x, x_i) y_i, a = softmax_i cos(f(x), g(x_i)).
With full-context embeddings, where f' and g' are the encoder and c(·, ·) is left out:
(3) ĥ_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1}), (4) h_k = ĥ_k + f'(x),
(5) r_{k-1} = Σ_i a(h_{k-1}, g(x_i)) g(x_i), (6) a = softmax_i(h_{k-1}ᵀ g(x_i)),
(7) g(x_i) = h→_i + h←_i + g'(x_i), from LSTMs that read g'(x_1), g'(x_2), … both ways.
"""

import keras
import numpy as np
import pytest

import tfmeta

RNG = np.random.default_rng(0)
N_FEATURES = 3


@pytest.fixture(autouse=True)
def same_numbers_in_any_order_of_tests():
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


def new_learner(**options):
    """A learner all of whose weights, biases too, are random."""
    layers = [keras.Input((4,)), keras.layers.Dense(N_FEATURES, activation="tanh")]
    learner = tfmeta.MatchingNetwork(keras.Sequential(layers), **options)
    learner.set_weights([RNG.normal(size=w.shape) for w in learner.get_weights()])
    return learner


def identity_learner(**options):
    encoder = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    return tfmeta.MatchingNetwork(encoder, **options)


# === The equations ===


def softmax(values):
    return np.exp(values) / np.exp(values).sum()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, state, memory, kernel, recurrent_kernel, bias):
    """One step: gates in Keras's order (input, forget, cell, output), without peepholes."""
    gates = x @ kernel + state @ recurrent_kernel + bias
    i, f, g, o = np.split(gates, 4)
    memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(memory), memory


def read_through(features, weights):
    """Hidden states of an LSTM that reads the features in order."""
    hidden = memory = np.zeros(N_FEATURES)
    states = []
    for x in features:
        hidden, memory = lstm(x, hidden, memory, *weights)
        states.append(hidden)
    return np.array(states)


def support_in_context(features, forward, backward):
    """Equation (7)."""
    return read_through(features, forward) + read_through(features[::-1], backward)[::-1] + features


def query_in_context(feature, support, steps, kernel, recurrent_kernel, bias):
    """Equations (3) to (6), with the paper's LSTM of input f'(x) and state [h; r].

    The weights are those of a cell with input [f'(x); r] and state h.
    """
    input_kernel = kernel[:N_FEATURES]
    state_kernel = np.concatenate([recurrent_kernel, kernel[N_FEATURES:]])
    hidden = memory = np.zeros(N_FEATURES)
    for _ in range(steps):
        attention = softmax(np.array([hidden @ g for g in support]))
        read = sum(a * g for a, g in zip(attention, support, strict=True))
        state = np.concatenate([hidden, read])
        hidden, memory = lstm(feature, state, memory, input_kernel, state_kernel, bias)
        hidden = hidden + feature
    return hidden


def attention_of(query, support):
    cosines = [query @ g / np.sqrt((query @ query) * (g @ g)) for g in support]
    return softmax(np.array(cosines))


def expected_attention(weights, support_x, query_x, steps=None):
    """`[Q, S]`, of one task; with full-context embeddings if there are `steps`."""
    support, queries = (np.tanh(x @ weights[0] + weights[1]) for x in (support_x, query_x))
    if steps:
        support = support_in_context(support, weights[2:5], weights[5:8])
        queries = [query_in_context(f, support, steps, *weights[8:11]) for f in queries]
    return np.array([attention_of(f, support) for f in queries])


def expected_logits(weights, support_x, support_y, query_x, steps=None):
    attention = expected_attention(weights, support_x, query_x, steps)
    p = np.zeros((len(query_x), max(support_y) + 1))
    for i, label in enumerate(support_y):
        p[:, label] += attention[:, i]
    return np.log(p + 1e-7)


def task():
    return RNG.normal(size=(7, 4)), np.array([1, 0, 2, 2, 1, 2, 0]), RNG.normal(size=(5, 4))


# === Predictions ===


@pytest.mark.usefixtures("float64")
def test_two_classes_by_hand():
    x, y = np.array([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]), np.array([0, 1, 0])
    model = identity_learner().adapt(x, y)
    # The cosines are 1, 0, -1 and 0.6, 0.8, -0.6.
    e = np.exp
    first = np.array([e(1) + e(-1), e(0)]) / (e(1) + e(0) + e(-1))
    second = np.array([e(0.6) + e(-0.6), e(0.8)]) / (e(0.6) + e(0.8) + e(-0.6))
    logits = model(np.array([[5.0, 0.0], [3.0, 4.0]])).numpy()
    np.testing.assert_allclose(logits, np.log(np.array([first, second]) + 1e-7), rtol=1e-14)


@pytest.mark.usefixtures("float64")
def test_the_temperature_divides_the_cosines():
    x, y = np.array([[3.0, 0.0], [0.0, 2.0]]), np.array([0, 1])
    model = identity_learner(temperature=0.1).adapt(x, y)
    # The cosines are 0.6 and 0.8.
    p = np.array([np.exp(6), np.exp(8)]) / (np.exp(6) + np.exp(8))
    logits = model(np.array([[3.0, 4.0]])).numpy()
    np.testing.assert_allclose(logits, np.log([p + 1e-7]), rtol=1e-14)


@pytest.mark.usefixtures("float64")
def test_a_class_without_attention_has_a_finite_logit():
    state = {
        "support": np.eye(2),
        "exists": np.array([1.0, 0.0]),
        "labels": np.eye(2),
        "statistics": [],
    }
    logits = identity_learner().predict_task(state, np.array([[1.0, 2.0]]))
    np.testing.assert_allclose(logits, np.log([[1 + 1e-7, 1e-7]]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("steps", [None, 1, 2, 5])
@pytest.mark.usefixtures("float64")
def test_logits_are_those_of_the_equations(steps):
    learner = new_learner(full_context=bool(steps), processing_steps=steps or 5)
    x, y, q = task()
    inputs = {
        "support_x": np.stack([x, x[::-1]]),
        "support_y": np.stack([y, y]),
        "query_x": np.stack([q, -q]),
    }
    weights = learner.get_weights()
    expected = [
        expected_logits(
            weights, *(inputs[k][t] for k in ("support_x", "support_y", "query_x")), steps
        )
        for t in range(2)
    ]
    for training in (False, True):
        np.testing.assert_allclose(learner(inputs, training=training), expected, atol=1e-10)
    np.testing.assert_allclose(learner.adapt(x, y)(q), expected[0], atol=1e-10)


@pytest.mark.usefixtures("float64")
def test_five_processing_steps_are_the_default():
    learner = new_learner(full_context=True)
    x, y, q = task()
    expected = expected_logits(learner.get_weights(), x, y, q, steps=5)
    np.testing.assert_allclose(learner.adapt(x, y)(q), expected, atol=1e-10)
    other = expected_logits(learner.get_weights(), x, y, q, steps=4)
    assert np.abs(other - expected).max() > 1e-6


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("shape", [(1,), (2,), (2, 3)])
@pytest.mark.usefixtures("float64")
def test_regression_is_the_mean_of_the_targets_weighted_by_attention(steps, shape):
    learner = new_learner(full_context=bool(steps), processing_steps=steps or 5)
    x, _, q = task()
    targets = RNG.normal(size=(len(x), *shape))
    attention = expected_attention(learner.get_weights(), x, q, steps)
    expected = np.zeros((len(q), *shape))
    for j in range(len(q)):
        for i in range(len(x)):
            expected[j] += attention[j, i] * targets[i]
    np.testing.assert_allclose(learner.adapt(x, targets)(q), expected, atol=1e-10)
    inputs = {"support_x": x[None], "support_y": targets[None], "query_x": q[None]}
    np.testing.assert_allclose(learner(inputs)[0], expected, atol=1e-10)


@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.usefixtures("float64")
def test_maps_are_compared_as_vectors(steps):
    encoder = keras.Sequential([keras.Input((3, 1, 2)), keras.layers.Conv2D(1, 1)])
    learner = tfmeta.MatchingNetwork(encoder, full_context=bool(steps), processing_steps=steps or 5)
    learner.set_weights([RNG.normal(size=w.shape) for w in learner.get_weights()])
    kernel, bias, *weights = learner.get_weights()
    x, q = RNG.normal(size=(4, 3, 1, 2)), RNG.normal(size=(3, 3, 1, 2))
    y = np.array([0, 1, 1, 0])
    support, queries = ((v @ kernel[0, 0] + bias).reshape(len(v), 3) for v in (x, q))
    if steps:
        support = support_in_context(support, weights[0:3], weights[3:6])
        queries = [query_in_context(f, support, steps, *weights[6:9]) for f in queries]
    attention = np.array([attention_of(f, support) for f in queries])
    expected = np.log(attention @ np.eye(2)[y] + 1e-7)
    np.testing.assert_allclose(learner.adapt(x, y)(q), expected, atol=1e-10)


# === The meta-gradient ===


@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.usefixtures("float64")
def test_meta_gradient_is_the_finite_difference_of_the_equations(steps):
    learner = new_learner(full_context=bool(steps), processing_steps=steps or 5)
    x, y, q = task()
    query_y = np.array([2, 0, 1, 1, 0])
    learner.compile(keras.optimizers.SGD(1.0), learner.default_loss(), run_eagerly=True)
    start = learner.get_weights()
    inputs = {"support_x": x[None], "support_y": y[None], "query_x": q[None]}
    learner.train_step((inputs, query_y[None]))
    gradient = [a - b for a, b in zip(start, learner.get_weights(), strict=True)]

    def loss(weights):
        logits = expected_logits(weights, x, y, q, steps)
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        return -log_p[np.arange(len(query_y)), query_y].mean()

    for i, analytic in enumerate(gradient):
        # A direction for each weight matrix, so that an error in one cannot hide in another.
        direction = RNG.normal(size=analytic.shape)
        up, down = (
            loss([*start[:i], start[i] + h * direction, *start[i + 1 :]]) for h in (1e-5, -1e-5)
        )
        numeric = (up - down) / 2e-5
        assert (analytic * direction).sum() == pytest.approx(numeric, rel=1e-6, abs=1e-9)


# === Errors ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processing_steps": 0}, "processing_steps must be an integer ≥ 1; got 0"),
        ({"processing_steps": 2.5}, "processing_steps must be an integer ≥ 1; got 2.5"),
        ({"temperature": 0}, "temperature must be > 0; got 0"),
        ({"batch_norm": None}, 'must be "transductive", "support" or "running"; got None'),
        ({"encoder": "conv4"}, "encoder must be a keras.Model; got str"),
    ],
)
def test_a_wrong_option_is_refused(options, message):
    encoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        tfmeta.MatchingNetwork(**{"encoder": encoder, **options})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2], r"Every class from 0 to 2 needs a support example; none has the label 1\."),
        ([0.5, 1.5, 2.5], r"must be integer labels \[S\]; got float64 \(3,\)"),
        ([[0.5], [np.nan], [2.5]], "support_y must be finite; 1 of its 3 values"),
    ],
)
def test_labels_that_are_none_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        identity_learner().adapt(np.zeros((3, 2), "float32"), np.array(labels))
