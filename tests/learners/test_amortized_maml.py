"""Amortized MAML against closed forms of Bayesian linear regression, in float64."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.learners.inner_batches import Support
from tfmeta.learners.sampled_outputs import averaged, gaussian_kl

pytestmark = pytest.mark.usefixtures("float64")

NOISE = 0.3


def learner_of_lines(**options):
    """Of y = a x + b, with a prior that is not the standard one."""
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    options = {"samples": 4, "kl_weight": 1.0, "noise_scale": NOISE, "inner_loss": "mse", **options}
    learner = tfmeta.AmortizedMAML(network, **options)
    for variable, value in zip(prior_of(learner), THETA, strict=False):
        variable.assign(np.full(variable.shape, value))
    return learner


# The prior's means of slope and shift, their log σ, and that of the noise.
THETA = np.array([0.7, -0.4, -0.5, 0.2, np.log(NOISE)])


def prior_of(learner):
    noise = [learner.log_noise_scale] if learner.learn_noise_scale else []
    return [*learner.network.trainable_variables, *learner.log_sigmas, *noise]


def lines(n_tasks=2, n_support=6, n_query=5):
    rng = np.random.default_rng(3)
    x = {k: rng.normal(1, 1, (n_tasks, n, 1)) for k, n in (("s", n_support), ("q", n_query))}
    slopes, shifts = rng.normal(size=(2, n_tasks, 1, 1))
    y = {k: slopes * v + shifts + NOISE * rng.normal(size=v.shape) for k, v in x.items()}
    return {"support_x": x["s"], "support_y": y["s"], "query_x": x["q"]}, y["q"]


def as_draws(pairs):
    """Random numbers of slope and shift, as `draw` returns them."""
    return [[tf.constant([[a]], "float64"), tf.constant([b], "float64")] for a, b in pairs]


def test_inner_steps_arrive_at_the_best_mean_field_gaussian_of_the_exact_posterior():
    """The design is not orthogonal, so the posterior is correlated.

    Of a Gaussian N(m, Λ⁻¹), the independent Gaussians with the least KL(q ‖ posterior) have the
    means m and the variances 1 / Λ_ii.
    """
    learner = learner_of_lines()
    inputs, _ = lines(n_tasks=1)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    design = np.hstack([x, np.ones_like(x)])
    prior_mean, prior_precision = THETA[:2], np.exp(-2 * THETA[2:4])
    precision = np.diag(prior_precision) + design.T @ design / NOISE**2
    mean = np.linalg.solve(precision, prior_precision * prior_mean + design.T @ y[:, 0] / NOISE**2)
    assert abs(precision[0, 1]) > 0.4 * np.sqrt(precision[0, 0] * precision[1, 1])

    # These four points have mean 0 and covariance I, so the expectation of squares is exact.
    signs = as_draws(itertools.product((-1.0, 1.0), repeat=2))
    learner.draw = lambda seed, n_samples: signs
    learner.inner_rule.inner_learning_rate = 0.055
    support = Support(tf.constant(x), tf.constant(y), None)

    def next_step(step, state):
        return step + 1, learner.inner_step(state, (), support, step, False, False)[0]

    descend = tf.function(
        lambda: tf.while_loop(lambda i, _: i < 1500, next_step, (0, learner.start()[0])),
        autograph=False,
    )
    _, state = descend()
    (a, b), (log_a, log_b) = learner.posterior(state["trainable"])
    np.testing.assert_allclose([float(a[0, 0]), float(b[0])], mean, rtol=1e-9)
    variances = np.exp([2 * float(log_a[0, 0]), 2 * float(log_b[0])])
    np.testing.assert_allclose(variances, 1 / np.diag(precision), rtol=1e-9)


def outer_loss(theta, inputs, query_y, draws, steps, rate, kl_weight, prior_weight):
    """The outer loss of all tasks, with NumPy; each inner gradient is the closed form."""
    theta, log_noise = theta[:4], theta[4]
    noise_variance = np.exp(2 * log_noise)
    total = 0.0
    for t in range(len(query_y)):
        (xs, ys), (xq, yq) = (
            (np.hstack([x[t], np.ones_like(x[t])]), y[t][:, 0])
            for x, y in ((inputs["support_x"], inputs["support_y"]), (inputs["query_x"], query_y))
        )
        mean, log_sigma = theta[:2].copy(), theta[2:].copy()
        for noise in draws[t][:steps]:  # [n_samples, 2]
            sigma = np.exp(log_sigma)
            drawn = mean + sigma * noise
            by_weight = ((drawn @ xs.T - ys) @ xs) / noise_variance / len(ys)
            by_mean = by_weight.mean(axis=0)
            by_mean += kl_weight * (mean - theta[:2]) * np.exp(-2 * theta[2:]) / len(ys)
            by_log = (by_weight * noise).mean(axis=0) * sigma
            by_log += kl_weight * (np.exp(2 * (log_sigma - theta[2:])) - 1) / len(ys)
            mean, log_sigma = mean - rate * by_mean, log_sigma - rate * by_log
        drawn = mean + np.exp(log_sigma) * draws[t][steps]
        x, y = np.vstack([xs, xq]), np.concatenate([ys, yq])
        squares = ((drawn @ x.T - y) ** 2).mean(axis=0) / (2 * noise_variance)
        likelihood = np.sum(squares + log_noise + np.log(2 * np.pi) / 2)
        variances, prior = np.exp(2 * log_sigma), np.exp(2 * theta[2:])
        kl = np.sum(np.log(prior / variances) + variances / prior - 1) / 2
        kl += np.sum((mean - theta[:2]) ** 2 / prior) / 2
        # 1/σ² ~ Gamma(3, 0.2) and μ ~ N(0, 1), without their constants.
        hyper = np.sum(theta[:2] ** 2) / 2 + np.sum(0.2 / prior + 2 * np.log(prior))
        total += (likelihood + kl_weight * kl + prior_weight * hyper) / len(y)
    return total / len(query_y)


def test_outer_loss_and_its_gradient_are_those_of_numpy():
    options = {"kl_weight": 0.6, "prior_weight": 0.05, "inner_steps": 2}
    learner = learner_of_lines(
        samples=3,
        inner_learning_rate=0.02,
        prior_concentration=3.0,
        prior_rate=0.2,
        learn_noise_scale=True,
        **options,
    )
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(2, 3, 3, 2))  # tasks, two steps and the posterior, samples, weights
    inputs, query_y = lines()

    def loss(theta):
        return outer_loss(theta, inputs, query_y, draws, 2, 0.02, 0.6, 0.05)

    expected = []
    for i in range(5):
        shift = 1e-5 * np.eye(5)[i]
        expected.append((loss(THETA + shift) - loss(THETA - shift)) / 2e-5)
    learner.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    before = np.concatenate([v.numpy().ravel() for v in prior_of(learner)])
    # Per task: two inner steps, then the posterior's networks on the support set and on queries.
    order = iter([draws[t][step] for t in range(2) for step in (0, 1, 2, 2)])
    learner.draw = lambda seed, n_samples: as_draws(next(order))
    logs = learner.train_step((inputs, query_y))
    moved = np.concatenate([v.numpy().ravel() for v in prior_of(learner)])
    np.testing.assert_array_equal(before, THETA)
    np.testing.assert_allclose(float(logs["loss"]), loss(THETA), rtol=1e-12)
    np.testing.assert_allclose(before - moved, expected, rtol=1e-7)


def test_divergence_is_the_integral():
    x = np.linspace(-12, 12, 200_001)

    def density(mean, log_sigma):
        return np.exp(-((x - mean) ** 2) / (2 * np.exp(2 * log_sigma)) - log_sigma) / np.sqrt(
            2 * np.pi
        )

    q, p = density(0.3, -0.4), density(-0.6, 0.25)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(q > 1e-300, q * np.log(q / p), 0)
    actual = gaussian_kl(*([tf.constant([v], "float64")] for v in (0.3, -0.4, -0.6, 0.25)))
    np.testing.assert_allclose(float(actual), np.trapezoid(values, x), rtol=1e-9)


def test_predictions_are_means_of_probabilities():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(5, 4, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    mean = tf.nn.softmax(averaged(list(tf.constant(logits)), "logits"))
    np.testing.assert_allclose(mean, probabilities.mean(axis=0), rtol=1e-12)
    columns = logits[..., :1]
    mean = tf.sigmoid(averaged(list(tf.constant(columns)), "binary_logits"))
    np.testing.assert_allclose(mean, (1 / (1 + np.exp(-columns))).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(averaged(list(columns), "values"), columns.mean(axis=0))


def test_variance_is_that_of_the_mixture():
    learner = learner_of_lines(samples=30, test_inner_steps=0)
    inputs, _ = lines()
    mean, variance = learner.predict_distribution(inputs)
    np.testing.assert_allclose(mean, learner(inputs), rtol=1e-12)
    draws = learner.draw([0, -1], 30)
    a, b = np.array([[float(e[0]) for e in (sample[0][0], sample[1])] for sample in draws]).T
    outputs = (0.7 + np.exp(-0.5) * a) * inputs["query_x"] - 0.4 + np.exp(0.2) * b
    np.testing.assert_allclose(mean[..., 0], outputs.mean(axis=-1), rtol=1e-10)
    np.testing.assert_allclose(variance[..., 0], outputs.var(axis=-1) + NOISE**2, rtol=1e-10)


def test_draws_differ_between_tasks_steps_and_calls_in_training_and_are_fixed_elsewhere():
    learner = learner_of_lines(inner_steps=2)
    inputs, query_y = lines()
    twice = {k: np.repeat(v[:1], 2, axis=0) for k, v in inputs.items()}
    learner.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    one, two = learner(twice)
    np.testing.assert_array_equal(one, two)
    seeds = []
    draw = learner.draw
    learner.draw = lambda seed, n: seeds.append(tuple(seed.numpy())) or draw(seed, n)
    learner.train_on_batch(twice, np.repeat(query_y[:1], 2, axis=0))
    # Per task: two steps, and the posterior twice.
    assert len(seeds) == 8 and len(set(seeds)) == 6
    learner.train_on_batch(twice, np.repeat(query_y[:1], 2, axis=0))
    assert len(set(seeds)) == 12
    seeds.clear()
    learner(twice)
    assert seeds == [(0, 0), (0, 1), (0, -1)] * 2


def test_without_variance_and_divergence_it_is_maml():
    inputs, _ = lines()
    options = {"inner_steps": 3, "inner_learning_rate": 0.05}
    learner = learner_of_lines(**options, kl_weight=0.0, noise_scale=np.sqrt(0.5), samples=2)
    for log_sigma in learner.log_sigmas:
        log_sigma.assign(tf.fill(log_sigma.shape, tf.constant(-40.0, "float64")))
    network = learner.network
    maml = tfmeta.MAML(network, inner_loss="mse", **options)
    np.testing.assert_allclose(learner(inputs), maml(inputs), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_loss": "mae"}, "likelihood"),
        ({"inner_loss": None, "learn_noise_scale": True}, "for regression"),
        ({"inner_loss": keras.losses.MeanSquaredError(reduction="sum")}, "mean over the examples"),
        ({"kl_weight": -1.0}, "kl_weight must be a finite number ≥ 0"),
        ({"samples": 0}, "samples must be an integer ≥ 1"),
        ({"noise_scale": 0.0}, "noise_scale must be > 0"),
        ({"initial_log_sigma": (1.0, 0.0)}, "two numbers"),
        ({"seed": 2**31}, "seed must be below"),
    ],
)
def test_options_that_cannot_be_right_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        learner_of_lines(**options)


def test_a_layer_that_is_frozen_later_is_refused():
    learner = learner_of_lines()
    learner.network.add(keras.layers.Dense(1))
    with pytest.raises(ValueError, match="a standard deviation for each weight"):
        learner.start_weights()


def test_of_classes_there_is_no_other_distribution():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="softmax"):
        tfmeta.AmortizedMAML(network).predict_distribution({})
