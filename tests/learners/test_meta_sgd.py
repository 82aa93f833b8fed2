"""Meta-SGD against closed forms on the linear model."""

import keras
import numpy as np
import pytest

import tfmeta

pytestmark = pytest.mark.usefixtures("float64")

RATES = np.array([[0.1], [-0.05], [0.3]])


def learner_of(cls=tfmeta.MetaSGD, rate=0.125, **options):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    return cls(network, inner_learning_rate=rate, inner_loss="mse", **options)


def linear_tasks(n_tasks=3, n_support=6, n_query=5):
    rng = np.random.default_rng(0)
    shapes = {"support_x": (n_support, 3), "support_y": (n_support, 1), "query_x": (n_query, 3)}
    inputs = {k: rng.normal(size=(n_tasks, *shape)) for k, shape in shapes.items()}
    return inputs, rng.normal(size=(n_tasks, n_query, 1))


def mse_gradient(w, x, y):
    return 2 * x.T @ (x @ w - y) / len(x)


def test_one_step_is_the_rates_times_the_gradient_also_where_they_are_negative():
    learner = learner_of()
    (rates,) = learner.inner_rule.learning_rates
    np.testing.assert_array_equal(rates.numpy(), np.full((3, 1), 0.125))
    rates.assign(RATES)
    inputs, _ = linear_tasks()
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    w = learner.network.get_weights()[0]
    adapted = learner.adapt(x, y).get_weights()[0]
    np.testing.assert_allclose(adapted, w - RATES * mse_gradient(w, x, y), rtol=1e-12)
    uphill = (adapted - w)[1] * mse_gradient(w, x, y)[1]
    assert uphill > 0


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_gradients_of_start_and_rates_are_the_closed_form(steps, first_order, meta_gradient):
    learner = learner_of(inner_steps=steps, first_order=first_order)
    learner.inner_rule.learning_rates[0].assign(RATES)
    inputs, query_y = linear_tasks()
    w = learner.network.get_weights()[0]
    by_start = by_rates = 0.0
    for task in range(3):
        x, y, q = (inputs[name][task] for name in ("support_x", "support_y", "query_x"))
        hessian = 2 * x.T @ x / len(x)
        fast, gradients = w, []
        for _ in range(steps):
            gradients.append(mse_gradient(fast, x, y))
            fast = fast - RATES * gradients[-1]
        outer = mse_gradient(fast, q, query_y[task]) / 3
        for gradient in reversed(gradients):
            by_rates = by_rates - outer * gradient
            outer = outer if first_order else outer - hessian @ (RATES * outer)
        by_start = by_start + outer
    actual = meta_gradient(learner, inputs, query_y)
    assert [v.path.split("/")[-1] for v in learner.trainable_variables] == ["kernel", "rates_0"]
    np.testing.assert_allclose(actual[0], by_start, rtol=1e-10)
    np.testing.assert_allclose(actual[1], by_rates, rtol=1e-10)


def test_equal_rates_are_maml(meta_gradient):
    inputs, query_y = linear_tasks()
    predictions, gradients = [], []
    for cls in (tfmeta.MAML, tfmeta.MetaSGD):
        learner = learner_of(cls, inner_steps=2, test_inner_steps=4)
        predictions.append(learner(inputs).numpy())
        gradients.append(meta_gradient(learner, inputs, query_y)[0])
    np.testing.assert_array_equal(*predictions)
    np.testing.assert_array_equal(*gradients)


def test_batch_norm_has_no_rates():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    learner = tfmeta.MetaSGD(keras.Sequential([keras.Input((3,)), *layers]))
    shapes = [tuple(rates.shape) for rates in learner.inner_rule.learning_rates]
    assert shapes == [(3, 4), (4,), (4, 2), (2,)]


def test_training_learns_the_rates_and_the_file_keeps_them(tmp_path):
    learner = learner_of(rate=0.01)
    learner.compile(keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
    learner.train_on_batch(*linear_tasks())
    rates = learner.inner_rule.learning_rates[0].numpy()
    assert np.all(rates != 0.01) and len(np.unique(rates)) == 3
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    np.testing.assert_array_equal(loaded.inner_rule.learning_rates[0].numpy(), rates)
