"""MAML++ against closed forms on the linear model: multi-step losses and both schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta

RATE = 0.125


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])


def learner_of(steps=3, rule="sgd", **options):
    return tfmeta.MAMLPlusPlus(
        network(),
        inner_learning_rate=RATE,
        inner_steps=steps,
        inner_rule=rule,
        inner_loss="mse",
        **options,
    )


def linear_tasks(n_tasks=2, n_support=6, n_query=5):
    rng = np.random.default_rng(0)
    shapes = {"support_x": (n_support, 3), "support_y": (n_support, 1), "query_x": (n_query, 3)}
    inputs = {k: rng.normal(size=(n_tasks, *shape)) for k, shape in shapes.items()}
    return inputs, rng.normal(size=(n_tasks, n_query, 1))


def mse_gradient(w, x, y):
    return 2 * x.T @ (x @ w - y) / len(x)


def closed_form(w, inputs, query_y, step_weights, first_order):
    """The loss Σ_k v_k L(θ_k; query), and its derivative by the initialisation."""
    loss, gradient = 0.0, np.zeros_like(w)
    for x, y, q, t in zip(
        *(inputs[k] for k in ("support_x", "support_y", "query_x")), query_y, strict=True
    ):
        fast, derivative = w, np.eye(3)
        for share in step_weights:
            if not first_order:
                derivative = derivative - RATE * 2 * x.T @ x / len(x) @ derivative
            fast = fast - RATE * mse_gradient(fast, x, y)
            loss += share * np.mean((q @ fast - t) ** 2) / len(query_y)
            gradient += share * derivative.T @ mse_gradient(fast, q, t) / len(query_y)
    return loss, gradient


def at_iteration(learner, iteration, outer_rate=1.0, **options):
    """The learner, compiled, as if it had been trained for so many steps."""
    options = {"run_eagerly": True, **options}
    learner.compile(keras.optimizers.SGD(outer_rate), "mse", **options)
    learner.optimizer.build(learner.trainable_variables)
    learner.optimizer.iterations.assign(iteration)
    return learner


def one_step(learner, inputs, query_y):
    """The loss that a training step reports, and what it subtracts from the kernel."""
    before = learner.network.get_weights()[0]
    loss = learner.train_on_batch(inputs, query_y)
    return loss, before - learner.network.get_weights()[0]


# === The multi-step loss ===


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, [0.25, 0.25, 0.25, 0.25]),
        (2, [0.2, 0.2, 0.2, 0.4]),
        (5, [0.125, 0.125, 0.125, 0.625]),
        (10, [0, 0, 0, 1]),
        (1000, [0, 0, 0, 1]),
    ],
)
def test_step_weights_go_linearly_from_equal_ones_to_the_last(iteration, expected):
    learner = learner_of(steps=4, multi_step_loss_iterations=10)
    actual = learner.step_weights(tf.constant(iteration, tf.int64))
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize(
    ("iteration", "step_weights"),
    [(0, [1 / 3] * 3), (5, [1 / 6, 1 / 6, 2 / 3]), (10, [0, 0, 1]), (11, [0, 0, 1])],
)
def test_loss_and_meta_gradient_are_the_closed_form(iteration, step_weights, first_order):
    learner = learner_of(
        multi_step_loss_iterations=10, first_order_iterations=100 if first_order else 0
    )
    at_iteration(learner, iteration)
    inputs, query_y = linear_tasks()
    start = learner.network.get_weights()[0]
    loss, gradient = closed_form(start, inputs, query_y, step_weights, first_order)
    reported, subtracted = one_step(learner, inputs, query_y)
    assert reported == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(subtracted, gradient, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_every_step_s_rate_is_meta_learned_from_the_losses_after_it(numeric_gradient):
    learner = learner_of(2, "per_layer_per_step", multi_step_loss_iterations=10)
    at_iteration(learner, 5)
    inputs, query_y = linear_tasks()
    kernel = learner.network.get_weights()[0]

    def outer_loss(w, rates):
        total = 0.0
        for x, y, q, t in zip(
            *(inputs[k] for k in ("support_x", "support_y", "query_x")), query_y, strict=True
        ):
            fast = w
            for rate, share in zip(rates, (0.25, 0.75), strict=True):
                fast = fast - rate * mse_gradient(fast, x, y)
                total += share * np.mean((q @ fast - t) ** 2) / 2
        return total

    by_start, by_rates = numeric_gradient(outer_loss, kernel, [RATE, RATE])
    _, subtracted = one_step(learner, inputs, query_y)
    np.testing.assert_allclose(subtracted, by_start, rtol=1e-6, atol=1e-9)
    rates = learner.inner_rule.learning_rates[0].numpy()
    np.testing.assert_allclose(RATE - rates, by_rates, rtol=1e-6, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_metrics_are_those_of_the_last_step():
    learner = learner_of(multi_step_loss_iterations=10)
    at_iteration(learner, 0, metrics=["mse"])
    inputs, query_y = linear_tasks()
    start = learner.network.get_weights()[0]
    expected, _ = closed_form(start, inputs, query_y, [0, 0, 1], first_order=True)
    logs = learner.train_on_batch(inputs, query_y, return_dict=True)
    assert logs["mse"] == pytest.approx(expected, rel=1e-10)
    assert logs["loss"] != pytest.approx(expected, rel=1e-3)


# === Schedules ===


@pytest.mark.usefixtures("float64")
def test_without_schedules_and_learned_rates_it_is_maml(meta_gradient):
    inputs, query_y = linear_tasks()
    plus_plus = learner_of(steps=3)
    maml = tfmeta.MAML(network(), inner_learning_rate=RATE, inner_steps=3, inner_loss="mse")
    np.testing.assert_array_equal(plus_plus(inputs), maml(inputs))
    gradients = [meta_gradient(learner, inputs, query_y)[0] for learner in (plus_plus, maml)]
    np.testing.assert_allclose(*gradients, rtol=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("run_eagerly", [pytest.param(False, marks=pytest.mark.large), True])
def test_both_schedules_count_the_optimizer_s_iterations_in_one_graph(run_eagerly):
    learner = learner_of(2, multi_step_loss_iterations=4, first_order_iterations=2)
    at_iteration(learner, 0, outer_rate=0.1)
    inputs, query_y = linear_tasks()
    step = learner.train_step if run_eagerly else tf.function(learner.train_step, autograph=False)
    inputs, query_y = keras.tree.map_structure(tf.constant, (inputs, query_y))
    for iteration in range(6):
        assert int(learner.optimizer.iterations) == iteration
        first = 0.5 * max(0, 1 - iteration / 4)
        start = learner.network.get_weights()[0]
        arguments = start, *keras.tree.map_structure(np.asarray, (inputs, query_y))
        expected, other = (
            0.1 * closed_form(*arguments, [first, 1 - first], first_order)[1]
            for first_order in (iteration < 2, iteration >= 2)
        )
        step((inputs, query_y))
        actual = start - learner.network.get_weights()[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-10)
        assert np.abs(actual - other).max() > 1e-3 * np.abs(actual).max()
    if not run_eagerly:
        assert step.experimental_get_tracing_count() == 1


@pytest.mark.usefixtures("float64")
def test_the_first_order_phase_is_first_order_maml(meta_gradient):
    inputs, query_y = linear_tasks()
    maml = tfmeta.MAML(
        network(), inner_learning_rate=RATE, inner_steps=3, first_order=True, inner_loss="mse"
    )
    plus_plus = learner_of(steps=3, first_order_iterations=1)
    gradients = [meta_gradient(learner, inputs, query_y)[0] for learner in (plus_plus, maml)]
    np.testing.assert_allclose(*gradients, rtol=1e-14)


@pytest.mark.usefixtures("float64")
def test_the_file_of_an_interrupted_run_resumes_the_schedules(tmp_path):
    learner = learner_of(2, multi_step_loss_iterations=4, first_order_iterations=2)
    at_iteration(learner, 0, outer_rate=0.1)
    inputs, query_y = linear_tasks()
    learner.train_on_batch(inputs, query_y)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    loaded.run_eagerly = True
    assert (loaded.multi_step_loss_iterations, loaded.first_order_iterations) == (4, 2)
    for iteration in (1, 2, 3, 4):
        start = loaded.network.get_weights()[0]
        first = 0.5 * (1 - iteration / 4)
        expected = closed_form(start, inputs, query_y, [first, 1 - first], iteration < 2)
        reported, subtracted = one_step(loaded, inputs, query_y)
        assert reported == pytest.approx(expected[0], rel=1e-10)
        np.testing.assert_allclose(subtracted, 0.1 * expected[1], rtol=1e-10)


# === Bad input ===


def test_an_inner_loop_without_steps_is_refused():
    with pytest.raises(ValueError, match="inner_steps must be an integer ≥ 1; got 0"):
        learner_of(steps=0)


def test_more_test_steps_than_learned_rates_are_refused():
    with pytest.raises(ValueError, match="up to 3 inner steps, those of meta-training; got 4"):
        learner_of(rule="per_layer_per_step", test_inner_steps=4)
    learner_of(test_inner_steps=4)


def test_step_weights_without_a_schedule_are_those_of_the_last_step():
    np.testing.assert_array_equal(learner_of(steps=2).step_weights(tf.constant(0)), [0, 1])
