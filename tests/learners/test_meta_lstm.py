"""The Meta-LSTM against a float64 NumPy implementation, gradient descent, and by its symmetries."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.inner_rules.lstm import LSTMRule, preprocess

RNG = np.random.default_rng(0)
HIDDEN = 5


pytestmark = pytest.mark.usefixtures("float64")


def linear_learner(**options):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    learner = tfmeta.MetaLSTM(network, inner_loss="mse", hidden_units=HIDDEN, **options)
    # Large enough weights, lest what is wrong with them drown.
    for variable in learner.inner_rule.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape, scale=0.7))
    network.layers[0].bias.assign(RNG.normal(size=2))
    return learner


def task(n=6):
    return RNG.normal(size=(n, 3)), RNG.normal(size=(n, 2))


# === NumPy ===


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def preprocessed(x, p=10):
    large = np.abs(x) >= np.exp(-p)
    magnitude = np.where(large, np.log(np.where(large, np.abs(x), 1)) / p, -1)
    return np.stack([magnitude, np.where(large, np.sign(x), np.exp(p) * x)], axis=-1)


def loss_and_gradient(theta, x, y):
    """Of a dense layer under the mean squared error; theta is kernel and bias, flat."""
    residual = x @ theta[:6].reshape(3, 2) + theta[6:] - y
    scaled = 2 * residual / residual.size
    return np.mean(residual**2), np.concatenate([(x.T @ scaled).ravel(), scaled.sum(axis=0)])


def numpy_updates(learner, theta, x, y, steps, recorded=None):
    """Coordinate by coordinate; with `recorded` losses and gradients in place of the real ones."""
    kernel, recurrent, bias = (v.numpy() for v in learner.inner_rule.lstm.trainable_variables)
    gates = {name: layer.get_weights() for name, layer in learner.inner_rule.gates.items()}
    n = len(theta)
    h, c = np.zeros((n, HIDDEN)), np.zeros((n, HIDDEN))
    before = {"forget": np.zeros(n), "input": np.zeros(n)}
    history = []
    for step in range(steps):
        loss, gradient = loss_and_gradient(theta, x, y) if recorded is None else recorded[step]
        history.append((loss, gradient))
        new, now = np.zeros(n), {name: np.zeros(n) for name in before}
        for j in range(n):
            inputs = np.concatenate([preprocessed(gradient[j]), preprocessed(loss)])
            i, f, z, o = np.split(inputs @ kernel + h[j] @ recurrent + bias, 4)
            c[j] = sigmoid(f) * c[j] + sigmoid(i) * np.tanh(z)
            h[j] = sigmoid(o) * np.tanh(c[j])
            for name, (w, b) in gates.items():
                now[name][j] = np.concatenate([h[j], [theta[j], before[name][j]]]) @ w[:, 0] + b[0]
            new[j] = sigmoid(now["forget"][j]) * theta[j] - sigmoid(now["input"][j]) * gradient[j]
        theta, before = new, now
    return theta, history


def flat(variables):
    return np.concatenate([np.ravel(v) for v in variables])


# === Golden values ===


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_updates_agree_with_numpy(steps):
    learner = linear_learner(inner_steps=steps)
    x, y = task()
    start = flat(learner.network.get_weights())
    expected, _ = numpy_updates(learner, start, x, y, steps)
    actual = flat(learner.adapt(x, y).get_weights())
    np.testing.assert_allclose(actual, expected, rtol=1e-11)
    assert np.abs(actual - start).max() > 0.1


@pytest.mark.parametrize("rate", [0.05, 0.5])
@pytest.mark.parametrize("steps", [1, 3])
def test_with_gates_of_1_and_alpha_it_is_gradient_descent(steps, rate):
    learner = linear_learner(inner_steps=steps)
    for gate, bias in (("forget", 1000.0), ("input", np.log(rate / (1 - rate)))):
        learner.inner_rule.gates[gate].set_weights([np.zeros((HIDDEN + 2, 1)), np.array([bias])])
    x, y = task()
    theta = flat(learner.network.get_weights())
    for _ in range(steps):
        theta = theta - rate * loss_and_gradient(theta, x, y)[1]
    np.testing.assert_allclose(flat(learner.adapt(x, y).get_weights()), theta, rtol=1e-12)


def test_batches_are_taken_one_after_another():
    learner = linear_learner(inner_steps=2, inner_batch_size=3)
    x, y = task()
    first = tfmeta.learners.inner_batches.support_batch(x, y, None, 0, 3)
    second = tfmeta.learners.inner_batches.support_batch(x, y, None, 1, 3)
    rows = np.concatenate([first[0], second[0]])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(x, axis=0))
    theta = flat(learner.network.get_weights())
    recorded = [loss_and_gradient(theta, *(t.numpy() for t in first[:2]))]
    middle, _ = numpy_updates(learner, theta, x, y, 1, recorded)
    recorded.append(loss_and_gradient(middle, *(t.numpy() for t in second[:2])))
    expected, _ = numpy_updates(learner, theta, x, y, 2, recorded)
    np.testing.assert_allclose(flat(learner.adapt(x, y).get_weights()), expected, rtol=1e-11)


def test_the_first_order_meta_gradient_holds_losses_and_gradients_constant():
    steps = 2
    learner = linear_learner(inner_steps=steps)
    (x, y), (query_x, query_y) = task(), task()
    start = flat(learner.network.get_weights())
    _, recorded = numpy_updates(learner, start, x, y, steps)

    def query_loss():
        theta = flat(learner.network.get_weights())
        adapted, _ = numpy_updates(learner, theta, x, y, steps, recorded)
        return loss_and_gradient(adapted, query_x, query_y)[0]

    expected, epsilon = [], 1e-6
    for variable in learner.trainable_variables:
        value, numeric = variable.numpy(), np.zeros(variable.shape)
        for index in np.ndindex(*value.shape):
            losses = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * epsilon
                variable.assign(moved)
                losses.append(query_loss())
            numeric[index] = (losses[0] - losses[1]) / (2 * epsilon)
        variable.assign(value)
        expected.append((variable, value, numeric))
    learner.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    inputs = {"support_x": x[None], "support_y": y[None], "query_x": query_x[None]}
    learner.train_step((inputs, query_y[None]))
    for variable, value, numeric in expected:
        np.testing.assert_allclose(value - variable.numpy(), numeric, rtol=1e-5, atol=1e-9)
    # The initialisation and the optimizer are both learned.
    assert all(np.abs(numeric).max() > 1e-6 for *_, numeric in expected)


# === Coordinates ===


def made_rule(n):
    keras.utils.set_random_seed(0)
    rule = LSTMRule(hidden_units=HIDDEN)
    weights = [tf.constant(RNG.normal(size=n))]
    rule.make(weights, 0.1, 3)
    for variable in rule.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape))
    return rule, weights


def three_updates(rule, weights, gradients):
    memory = rule.start(weights)
    for step, gradient in enumerate(gradients):
        weights, memory = rule.update(weights, [gradient], tf.constant(0.7), memory, step)
    return weights[0].numpy()


def test_permuting_coordinates_permutes_the_result():
    rule, weights = made_rule(12)
    gradients = RNG.normal(size=(3, 12))
    order = RNG.permutation(12)
    permuted = three_updates(rule, [tf.gather(weights[0], order)], gradients[:, order])
    np.testing.assert_array_equal(permuted, three_updates(rule, weights, gradients)[order])


def test_a_coordinate_depends_on_no_other():
    rule, weights = made_rule(12)
    gradients = RNG.normal(size=(3, 12))
    before = three_updates(rule, weights, gradients)
    gradients[:, 5] += 1
    changed = three_updates(rule, weights, gradients) != before
    assert changed.tolist() == [j == 5 for j in range(12)]


def test_how_weights_are_cut_into_tensors_does_not_matter():
    rule, (whole,) = made_rule(12)
    gradient = tf.constant(RNG.normal(size=12))

    def cut(tensor):
        return [tf.reshape(tensor[:6], [2, 3]), tensor[6:7], tf.reshape(tensor[7:], [5, 1, 1])]

    parts, _ = rule.update(
        cut(whole), cut(gradient), tf.constant(0.7), rule.start(cut(whole)), step=0
    )
    assert [p.shape for p in parts] == [(2, 3), (1,), (5, 1, 1)]
    together, _ = rule.update([whole], [gradient], tf.constant(0.7), rule.start([whole]), step=0)
    np.testing.assert_array_equal(flat(parts), together[0])


# === Preprocessing and initialisation ===


def test_preprocessing_is_that_of_the_paper():
    x = np.array([1.0, -np.e, np.exp(-10.0), 1e-5, -1e-5, 0.0, 100.0])
    expected = [
        [0, 1],
        [0.1, -1],
        [-1, 1],
        [-1, np.exp(10) * 1e-5],
        [-1, -np.exp(10) * 1e-5],
        [-1, 0],
        [np.log(100) / 10, 1],
    ]
    np.testing.assert_allclose(preprocess(tf.constant(x[:, None])), expected, rtol=1e-10)


def test_it_starts_near_gradient_descent_with_a_small_step():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    learner = tfmeta.MetaLSTM(network, inner_steps=1, inner_loss="mse")
    rule = learner.inner_rule
    assert rule.lstm.units == 20
    assert 4 <= rule.gates["forget"].bias.numpy() <= 5
    assert -5 <= rule.gates["input"].bias.numpy() <= -4
    for variable in (rule.lstm.kernel, rule.lstm.recurrent_kernel, rule.gates["input"].kernel):
        assert 0.003 < np.abs(variable).mean() < 0.007
        assert np.abs(variable).max() <= 0.01
    x, y = task()
    start = flat(network.get_weights())
    moved = flat(learner.adapt(x, y).get_weights())
    forget, update = (sigmoid(rule.gates[g].bias.numpy()) for g in ("forget", "input"))
    gradient = loss_and_gradient(start, x, y)[1]
    np.testing.assert_allclose(moved, forget * start - update * gradient, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize(
    "options", [{"forget_bias": (5, 4)}, {"input_bias": (1,)}, {"inner_steps": -1}]
)
def test_wrong_options_are_refused(options):
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=next(iter(options))):
        tfmeta.MetaLSTM(network, **options)
