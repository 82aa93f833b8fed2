"""Values of meta-reinforcement learning that were worked out by hand or in float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmeta.rl import Batch, StateIndependentLogStd, Trajectories, gaussian, surrogates
from tfmeta.rl import advantages as adv
from tfmeta.rl.conjugate_gradient import conjugate_gradient
from tfmeta.rl.policy_inner_loop import PolicyInnerLoop

RNG = np.random.default_rng(0)


# === A Gaussian policy and a quadratic reward, in one step ===
#
# With a ~ N(μ, σ²) and the reward −(a − g)², the expected return is J = −(μ − g)² − σ². So
# dJ/dμ = −2(μ − g), dJ/dlog σ = −2σ², d²J/dμ² = −2, d²J/d(log σ)² = −4σ², and the mixed one is 0.

MEAN, LOG_STD, GOAL = 0.3, -0.2, 1.1
VARIANCE = np.exp(2 * LOG_STD)
GRADIENT = np.array([-2 * (MEAN - GOAL), -2 * VARIANCE])
HESSIAN = np.diag([-2.0, -4 * VARIANCE])


@pytest.fixture
def one_step():
    """Actions at the nodes of a quadrature, whose weights are the mask: means are exact."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    actions = MEAN + np.exp(LOG_STD) * nodes
    rewards = -((actions - GOAL) ** 2)
    shape = [1, len(nodes), 1]
    outputs = np.broadcast_to([MEAN, LOG_STD], [*shape, 2])
    trajectories = Trajectories(
        *(
            tf.constant(x)
            for x in (
                np.zeros([*shape, 1]),
                actions.reshape([*shape, 1]),
                rewards.reshape(shape),
                weights.reshape(shape),
                outputs,
            )
        )
    )
    baseline = -((MEAN - GOAL) ** 2) - VARIANCE
    return Batch(trajectories, trajectories.rewards - baseline)


def derivatives(surrogate, batch):
    """The first and second derivatives by mean and log σ."""
    x = tf.Variable([MEAN, LOG_STD], dtype="float64")
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            outputs = tf.zeros([*batch.advantages.shape, 2], "float64") + x
            value = tf.reduce_sum(surrogate(outputs, *batch))
        gradient = tape.gradient(value, x)
    return gradient.numpy(), outer.jacobian(gradient, x).numpy()


def test_the_ratio_has_both_derivatives_of_the_expected_return(one_step):
    gradient, hessian = derivatives(surrogates.ratio, one_step)
    np.testing.assert_allclose(gradient, GRADIENT, rtol=1e-10)
    np.testing.assert_allclose(hessian, HESSIAN, rtol=1e-10, atol=1e-10)


def test_the_log_probability_has_only_the_first(one_step):
    gradient, hessian = derivatives(surrogates.log_probability, one_step)
    np.testing.assert_allclose(gradient, GRADIENT, rtol=1e-10)
    # E[∇² log π · A]: −E[A]/σ² = 0, −2E[(a − μ)A]/σ² and −2E[(a − μ)²A]/σ² = 4σ².
    naive = np.array([[0, 4 * (MEAN - GOAL)], [4 * (MEAN - GOAL), 4 * VARIANCE]])
    np.testing.assert_allclose(hessian, naive, rtol=1e-10, atol=1e-10)


def test_the_clipped_ratio_is_the_ratio_at_the_policy_that_acted(one_step):
    def clipped(*arguments):
        return surrogates.clipped_ratio(*arguments, clip=0.3)

    for found, expected in zip(derivatives(clipped, one_step), (GRADIENT, HESSIAN), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("inner_surrogate", ["ratio", "log_probability"])
def test_an_inner_step_and_its_derivative(one_step, inner_surrogate):
    x = keras.Input((1,), dtype="float64")
    mean = keras.layers.Dense(1, dtype="float64")(x)
    std = StateIndependentLogStd(initial_std=float(np.exp(LOG_STD)), dtype="float64")
    policy = keras.Model(x, std(mean))
    kernel, bias, log_std = policy.trainable_variables
    bias.assign([MEAN])
    log_std.assign([LOG_STD])
    rate = 0.1
    loop = PolicyInnerLoop(
        policy,
        rate,
        inner_steps=1,
        inner_surrogate=inner_surrogate,
        inner_rule="sgd",
        jit_compile=False,
    )
    with tf.GradientTape(persistent=True) as tape:
        _, (new_kernel, new_bias, new_log_std) = loop.adapted([one_step])
    # The observation is 0: the kernel has no effect.
    np.testing.assert_array_equal(new_kernel[0], kernel.value)
    np.testing.assert_allclose(new_bias[0], [MEAN + rate * GRADIENT[0]], rtol=1e-10)
    np.testing.assert_allclose(new_log_std[0], [LOG_STD + rate * GRADIENT[1]], rtol=1e-6)
    slopes = [
        tape.gradient(new_bias, bias.value).numpy()[0],
        tape.gradient(new_log_std, log_std.value).numpy()[0],
    ]
    right = 1 + rate * np.diag(HESSIAN)
    naive = 1 + rate * np.array([0, 4 * VARIANCE])
    np.testing.assert_allclose(slopes, right if inner_surrogate == "ratio" else naive, rtol=1e-6)


# === Gaussians ===


def test_log_probability_and_kl_of_gaussians():
    # Two dimensions: N(1, 2²) and N(0, 1); N(0, 1) and N(2, 3²).
    p = tf.constant([[1.0, 0.0, np.log(2), 0.0]], tf.float64)
    q = tf.constant([[0.0, 2.0, 0.0, np.log(3)]], tf.float64)
    a = np.array([[2.0, -1.0]])
    density = np.exp(-1 / 8) / (2 * np.sqrt(2 * np.pi)) * np.exp(-1 / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(gaussian.log_probability(p, a), [np.log(density)])
    first = -np.log(2) + (4 + 1) / 2 - 1 / 2
    second = np.log(3) + (1 + 4) / 18 - 1 / 2
    np.testing.assert_allclose(gaussian.kl_divergence(p, q), [first + second])
    np.testing.assert_allclose(gaussian.kl_divergence(p, p), [0], atol=1e-12)


def test_clipping_and_masks_by_hand():
    # π/π_old = 2, 0.5, 2 and (masked) 2, with the advantages 1, −1, −1 and 100.
    log_ratios = np.log([2.0, 0.5, 2.0, 2.0])
    actions = np.zeros([1, 1, 4, 1])
    old = np.zeros([1, 1, 4, 2])
    new = old.copy()
    new[0, 0, :, 1] = -log_ratios
    mask = tf.constant([[[1.0, 1, 1, 0]]], tf.float64)
    trajectories = Trajectories(None, tf.constant(actions), None, mask, tf.constant(old))
    a = tf.constant([[[1.0, -1, -1, 100]]], tf.float64)
    np.testing.assert_allclose(
        surrogates.ratio(tf.constant(new), trajectories, a), [(2 - 0.5 - 2) / 3]
    )
    np.testing.assert_allclose(
        surrogates.clipped_ratio(tf.constant(new), trajectories, a, 0.3), [(1.3 - 0.7 - 2) / 3]
    )


# === Advantages ===


def test_discounted_sums_and_generalised_advantages_by_hand():
    rewards = tf.constant([[[1.0, 2, 3, 9]]], tf.float64)
    mask = tf.constant([[[1.0, 1, 1, 0]]], tf.float64)
    np.testing.assert_allclose(
        adv.discounted_sums(rewards * mask, 0.5)[0, 0], [1 + 1 + 0.75, 2 + 1.5, 3, 0]
    )
    values = tf.constant([[[0.5, 1, -1, 7]]], tf.float64)
    # δ = r + γV' − V, with V' = 0 after the end; the advantage is δ + γλ times the next.
    errors = [1 + 0.5 * 1 - 0.5, 2 + 0.5 * -1 - 1, 3 - -1]
    third = errors[2]
    second = errors[1] + 0.5 * 0.8 * third
    first = errors[0] + 0.5 * 0.8 * second
    found = adv.generalized_advantages(rewards, values, mask, 0.5, 0.8)
    np.testing.assert_allclose(found[0, 0], [first, second, third, 0])


def test_the_baseline_is_that_of_least_squares_for_each_task():
    observations = RNG.normal(0, 6, (2, 5, 7, 2))
    targets = RNG.normal(0, 1, (2, 5, 7))
    mask = (RNG.random((2, 5, 7)) > 0.3).astype("float64")
    features = adv.baseline_features(tf.constant(observations))
    found = adv.fit_baseline(features, tf.constant(targets), tf.constant(mask))
    for task in range(2):
        s = np.clip(observations[task], -10, 10)
        t = np.broadcast_to(np.arange(7)[:, None] / 100, (5, 7, 1))
        x = np.concatenate([s, s**2, t, t**2, t**3, np.ones_like(t)], axis=-1).reshape(-1, 8)
        np.testing.assert_allclose(features[task].numpy().reshape(-1, 8), x)
        w = mask[task].reshape(-1)
        gram = (x * w[:, None]).T @ x + 1e-5 * np.eye(8)
        fit = x @ np.linalg.solve(gram, x.T @ (w * targets[task].reshape(-1)))
        np.testing.assert_allclose(found[task].numpy().reshape(-1), fit, rtol=1e-6, atol=1e-8)


def test_advantages_are_normalised_over_the_steps_that_were_taken():
    shape = (2, 4, 6)
    mask = np.ones(shape)
    mask[0, 1, 3:] = 0
    trajectories = Trajectories(
        tf.constant(RNG.normal(size=(*shape, 2))),
        None,
        tf.constant(RNG.normal(size=shape) * mask),
        tf.constant(mask),
        None,
    )
    found = adv.advantages(trajectories, 0.99, 1.0).numpy()
    for task in range(2):
        taken = found[task][mask[task] == 1]
        np.testing.assert_allclose([taken.mean(), taken.std()], [0, 1], atol=1e-6)
    assert (found[mask == 0] == 0).all()


def test_conjugate_gradients_solve_linear_equations():
    root = RNG.normal(size=(5, 5))
    matrix, b = root @ root.T + np.eye(5), RNG.normal(size=5)
    x, residual = conjugate_gradient(
        lambda v: tf.linalg.matvec(tf.constant(matrix), v), tf.constant(b), iterations=5
    )
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-6)
    np.testing.assert_allclose(residual, b - matrix @ x.numpy(), atol=1e-8)
