"""Gaussian processes, portfolios and initial sets, against values by hand and other libraries."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from tfmeta import tuning
from tfmeta.tuning.gaussian_process import factor, log_marginal_likelihood, matern52, posterior

RNG = np.random.default_rng(0)
POINTS, NEW = RNG.uniform(size=(7, 3)), RNG.uniform(size=(4, 3))
SCORES = np.sin(POINTS.sum(axis=1))
LENGTH_SCALE, NOISE = np.array([0.3, 0.5, 0.9]), 0.01


def test_the_gaussian_process_is_that_of_scikit_learn():
    process = pytest.importorskip("sklearn.gaussian_process")
    kernel = process.kernels.Matern(LENGTH_SCALE, nu=2.5)
    theirs = process.GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None)
    theirs.fit(POINTS, SCORES)
    covariance = matern52(POINTS, POINTS, LENGTH_SCALE) + NOISE * tf.eye(7, dtype="float64")
    factors = factor(covariance, tf.constant(SCORES))
    likelihood = log_marginal_likelihood(*factors)
    np.testing.assert_allclose(likelihood, theirs.log_marginal_likelihood_value_, rtol=1e-6)
    cross = matern52(POINTS, NEW, LENGTH_SCALE)
    ones = tf.ones(4, "float64")
    mean, variance = posterior(*factors, cross, ones)
    expected_mean, expected_std = theirs.predict(NEW, return_std=True)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(tf.sqrt(variance), expected_std, rtol=1e-5)


def test_the_deep_kernel_without_layers_is_a_gaussian_process_with_an_unknown_offset():
    process = pytest.importorskip("sklearn.gaussian_process")
    model = tuning.DeepKernel(3, hidden_units=())
    scale, offset, noise = (
        float(np.exp(2 * v)) for v in (model.log_scale, model.log_offset, model.log_noise)
    )
    kernels = process.kernels
    kernel = kernels.ConstantKernel(scale) * kernels.Matern(1.0, nu=2.5)
    kernel += kernels.ConstantKernel(offset)
    alpha = noise + 1e-6
    theirs = process.GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None)
    theirs.fit(POINTS, SCORES - SCORES.mean())
    mean, std = model.posterior_of(tuning.PastTask(POINTS, SCORES))(NEW)
    expected_mean, expected_std = theirs.predict(NEW, return_std=True)
    np.testing.assert_allclose(mean, expected_mean + SCORES.mean(), rtol=1e-5)
    np.testing.assert_allclose(std, expected_std, rtol=1e-4)


def test_the_expected_improvement_is_the_integral():
    mean, std, best = np.array([-1.0, 0.3, 2.0]), np.array([0.5, 1.0, 0.1]), 0.4
    expected = [
        integrate.quad(
            lambda y, m=m, s=s: (y - best) * stats.norm.pdf(y, m, s), best, m + 12 * s, points=[m]
        )[0]
        if m + 12 * s > best
        else 0.0
        for m, s in zip(mean, std, strict=True)
    ]
    np.testing.assert_allclose(tuning.expected_improvement(mean, std, best), expected, atol=1e-9)
    certain = tuning.expected_improvement([0.1, 0.9], [0.0, 0.0], best)
    np.testing.assert_allclose(certain, [0.0, 0.5])


def test_the_portfolio_by_hand():
    # Best on average is 2. With it, tasks are left with 0.3, 0.3, 0: candidate 0 lowers the first
    # to 0, candidate 1 the second to 0.1.
    regrets = np.array([[0.0, 0.9, 0.3, 0.3], [0.9, 0.1, 0.3, 0.3], [0.9, 0.9, 0.0, 0.1]])
    assert tuning.greedy_portfolio(regrets, 3) == [2, 0, 1]
    # Nothing improves any more: what is left comes in the order of the means.
    assert tuning.greedy_portfolio(np.array([[0.0, 0.3, 0.1, 0.2]]), 4) == [0, 2, 3, 1]


def test_the_soft_minimum_and_its_gradient():
    losses = np.array([0.3, 0.1, 0.6])
    weights = np.exp(-5 * losses) / np.exp(-5 * losses).sum()
    tensor = tf.constant(losses)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        value = tuning.soft_minimum(tensor, 5.0)
    np.testing.assert_allclose(value, (weights * losses).sum(), rtol=1e-12)
    steps = 1e-6 * np.eye(3)
    differences = [
        (
            tuning.soft_minimum(tf.constant(losses + s), 5.0)
            - tuning.soft_minimum(tf.constant(losses - s), 5.0)
        )
        / 2e-6
        for s in steps
    ]
    np.testing.assert_allclose(tape.gradient(value, tensor), differences, rtol=1e-6)
    np.testing.assert_allclose(tuning.soft_minimum(tensor, 1e4), 0.1)


def test_an_initial_set_has_a_configuration_for_each_kind_of_task():
    def task(best):
        return lambda x: tf.reduce_sum((x - best) ** 2, axis=1)

    points = tuning.learn_initial_set([task(0.1), task(0.1), task(0.8)], 2, n_inputs=2)
    # The one that is better on average comes first.
    np.testing.assert_allclose(points, [[0.1, 0.1], [0.8, 0.8]], atol=0.02)


def test_the_nearest_tasks_by_hand():
    # Scaled: distances 0.5 + 0, 0 + 0.5, 0.5 + 1; a constant meta-feature of the past counts as is.
    assert tuning.nearest_tasks([[0, 10], [5, 20], [10, 30]], [4, 12], k=2) == [0, 1]


def test_the_transferred_improvement_by_hand():
    # Trials scored 1, 2, 3. The first task ranks them alike; the second has 1 of 3 pairs the other
    # way, the third all.
    tried = np.array([[0.9, 0.8, 0.7], [0.8, 0.9, 0.6], [0.1, 0.2, 0.3]])
    losses = np.array([[0.2, 0.8], [0.6, 0.3], [0.0, 0.0]])
    gains = tuning.transfer_improvement(losses, tried, [1.0, 2.0, 3.0])
    weight = 1 - (1 / 3 / 0.5) ** 2
    np.testing.assert_allclose(gains, [0.5 / 3, weight * 0.3 / 3])
    nothing = tuning.transfer_improvement(losses, np.empty((3, 0)), [])
    assert nothing.argmax() == tuning.greedy_portfolio(losses, 1)[0]
