"""Inner update rules against steps by hand, NumPy, Keras's optimizers and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta import inner_rules
from tfmeta.inner_rules import (
    SGD,
    Adam,
    Clipped,
    InnerRule,
    Momentum,
    PerLayerPerStep,
    PerParameter,
    Schedule,
)

pytestmark = pytest.mark.usefixtures("float64")


def made(rule, shapes=((2,),), rate=0.1, inner_steps=3):
    rule.make([keras.Variable(np.zeros(shape)) for shape in shapes], rate, inner_steps)
    return rule


def trajectory(rule, weights, gradients):
    """The weights after each step along these gradients, `[step][weight]`."""
    weights = [tf.constant(w, "float64") for w in weights]
    memory, result = rule.start(weights), []
    for step, of_step in enumerate(gradients):
        of_step = [tf.constant(g, "float64") for g in of_step]
        weights, memory = rule.update(weights, of_step, tf.constant(1.0), memory, step)
        result.append([w.numpy() for w in weights])
    return result


def linear_learner(inner_rule, **options):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    return tfmeta.MAML(network, inner_loss="mse", inner_rule=inner_rule, **options)


def linear_tasks(n_tasks=2, n_support=6, n_query=5):
    rng = np.random.default_rng(0)
    shapes = {"support_x": (n_support, 3), "support_y": (n_support, 1), "query_x": (n_query, 3)}
    inputs = {k: rng.normal(size=(n_tasks, *shape)) for k, shape in shapes.items()}
    return inputs, rng.normal(size=(n_tasks, n_query, 1))


def tasks_of(inputs, query_y):
    names = ("support_x", "support_y", "query_x")
    return list(zip(*(inputs[name] for name in names), query_y, strict=True))


def mse_gradient(w, x, y):
    return 2 * x.T @ (x @ w - y) / len(x)


# === Steps by hand ===


def test_sgd_subtracts_the_rate_times_the_gradient():
    (first, second) = trajectory(made(SGD(), rate=0.5), [[1.0, 2.0]], [[[2.0, -4.0]], [[1.0, 0.0]]])
    np.testing.assert_allclose(first[0], [0.0, 4.0], rtol=1e-15)
    np.testing.assert_allclose(second[0], [-0.5, 4.0], rtol=1e-15)


def test_momentum_accumulates_what_went_before():
    gradients = [[[1.0, -2.0]], [[3.0, 1.0]], [[-1.0, 0.5]]]
    states = trajectory(made(Momentum(0.5), rate=0.125), [[1.0, 2.0]], gradients)
    # v = (1, -2), then (3.5, 0), then (0.75, 0.5).
    expected = [[0.875, 2.25], [0.4375, 2.25], [0.34375, 2.1875]]
    np.testing.assert_allclose(np.squeeze(states), expected, rtol=1e-12)


def test_per_parameter_has_a_rate_for_every_element():
    rule = made(PerParameter(), shapes=((2,), (1, 2)))
    rule.learning_rates[0].assign([0.5, -1.0])
    rule.learning_rates[1].assign([[0.0, 2.0]])
    ((first, second),) = trajectory(rule, [[1.0, 1.0], [[1.0, 1.0]]], [[[2.0, 4.0], [[6.0, 8.0]]]])
    np.testing.assert_allclose(first, [0.0, 5.0], rtol=1e-15)
    np.testing.assert_allclose(second, [[1.0, -15.0]], rtol=1e-15)


def test_per_layer_per_step_has_a_rate_for_every_layer_and_step():
    rule = made(PerLayerPerStep(), shapes=((2,), (1,)))
    rule.learning_rates[0].assign([0.5, 0.25, -1.0])
    rule.learning_rates[1].assign([1.0, 0.0, 2.0])
    states = trajectory(rule, [[0.0, 1.0], [0.0]], [[[1.0, 2.0], [3.0]]] * 3)
    expected = [[-0.5, 0.0], [-0.75, -0.5], [0.25, 1.5]]
    np.testing.assert_allclose([s[0] for s in states], expected, rtol=1e-15)
    np.testing.assert_allclose([s[1] for s in states], [[-3.0], [-3.0], [-9.0]], rtol=1e-15)


def test_a_schedule_has_a_rate_a_momentum_and_a_weight_decay_for_every_step():
    rule = made(Schedule(), inner_steps=2)
    rule.learning_rate.assign([0.5, 0.25])
    rule.momentum.assign([3.0, -1.0])
    rule.weight_decay.assign([0.5, 2.0])
    states = trajectory(rule, [[1.0, 2.0]], [[[2.0, -4.0]], [[1.0, 0.0]]])
    # v = (2, -4), θ = (1, 2) - 0.5 (v + 0.5 θ); then v = (-1, 4), θ - 0.25 (v + 2 θ).
    expected = [[-0.25, 3.5], [0.125, 0.75]]
    np.testing.assert_allclose(np.squeeze(states), expected, rtol=1e-12)


def test_a_schedule_starts_as_gradient_descent_or_as_it_is_told():
    gradients = np.random.default_rng(0).normal(size=(3, 1, 2))
    plain = trajectory(made(SGD()), [[1.0, 2.0]], gradients)
    np.testing.assert_allclose(trajectory(made(Schedule()), [[1.0, 2.0]], gradients), plain)
    with_momentum = trajectory(made(Momentum(0.5)), [[1.0, 2.0]], gradients)
    rule = made(Schedule(momentum=0.5))
    np.testing.assert_allclose(trajectory(rule, [[1.0, 2.0]], gradients), with_momentum)
    rule = made(Schedule(momentum=0.5, weight_decay=0.01))
    assert rule.get_config().items() >= {"momentum": 0.5, "weight_decay": 0.01}.items()
    np.testing.assert_allclose(rule.weight_decay, [0.01] * 3, rtol=1e-6)


def test_gradients_are_clipped_by_their_norm_or_by_value_before_the_rule():
    weights, gradients = [[0.0, 0.0], [0.0]], [[[3.0, 0.0], [-4.0]], [[0.3, 0.0], [0.4]]]
    rule = made(Clipped(global_clipnorm=1.0), shapes=((2,), (1,)), rate=0.5)
    # The norm of the first is 5, that of the second 0.5.
    expected = [[-0.3, 0.0, 0.4], [-0.45, 0.0, 0.2]]
    states = [np.concatenate(state) for state in trajectory(rule, weights, gradients)]
    np.testing.assert_allclose(states, expected, rtol=1e-12)
    rule = made(Clipped("momentum", clipvalue=1.0), shapes=((2,), (1,)), rate=0.5)
    states = [np.concatenate(state) for state in trajectory(rule, weights, gradients)]
    # v = (1, 0, -1), then 0.9 v + (0.3, 0, 0.4).
    np.testing.assert_allclose(states, [[-0.5, 0.0, 0.5], [-1.1, 0.0, 0.75]], rtol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clipvalue": 0.0},
        {"global_clipnorm": -1.0},
        {"clipvalue": True},
        {"clipvalue": 1.0, "global_clipnorm": 1.0},
    ],
)
def test_clipping_needs_one_positive_bound(options):
    with pytest.raises(ValueError, match="give one of global_clipnorm and clipvalue"):
        Clipped(**options)


def test_a_clipping_rule_is_saved_with_the_rule_that_it_has():
    rule = inner_rules.get({"name": "clipped", "rule": {"name": "adam", "beta_1": 0.5}} | NORM)
    again = Clipped.from_config(rule.get_config())
    assert again.rule.get_config()["beta_1"] == 0.5
    assert (again.global_clipnorm, again.clipvalue) == (2.0, None)


NORM = {"global_clipnorm": 2.0}


@pytest.mark.parametrize("bound", [NORM, {"clipvalue": 0.3}])
def test_the_meta_gradient_is_that_of_the_clipped_steps(meta_gradient, numeric_gradient, bound):
    rule = Clipped(**bound)
    learner = linear_learner(rule, inner_learning_rate=0.1, inner_steps=2)
    inputs, query_y = linear_tasks()
    n_clipped = []

    def clipped(gradient):
        if "clipvalue" in bound:
            n_clipped.append((np.abs(gradient) > 0.3).sum())
            return np.clip(gradient, -0.3, 0.3)
        n_clipped.append(np.linalg.norm(gradient) > 2.0)
        return gradient * min(1.0, 2.0 / np.linalg.norm(gradient))

    def outer_loss(w):
        losses = []
        for x, y, q, t in tasks_of(inputs, query_y):
            fast = w
            for _ in range(2):
                fast = fast - 0.1 * clipped(mse_gradient(fast, x, y))
            losses.append(np.mean((q @ fast - t) ** 2))
        return np.mean(losses)

    expected = numeric_gradient(outer_loss, learner.network.get_weights()[0])
    assert 0 < np.mean(n_clipped) < (3 if "clipvalue" in bound else 1)
    for actual, value in zip(meta_gradient(learner, inputs, query_y), expected, strict=True):
        np.testing.assert_allclose(actual, value, rtol=1e-6, atol=1e-9)


def test_zero_gradients_have_a_second_derivative():
    start = tf.Variable([0.0, 0.0], dtype="float64")
    rule = made(Clipped(global_clipnorm=1.0))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(start)
            loss = tf.reduce_sum(start**2)
        weights, _ = rule.update([start], [inner.gradient(loss, start)], loss, (), 0)
        result = tf.reduce_sum(weights[0])
    np.testing.assert_allclose(outer.gradient(result, start), [0.8, 0.8])


@pytest.mark.parametrize("beta_1", [0.0, 0.9])
def test_adam_is_that_of_the_paper_and_of_keras(beta_1):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(2, 3)), rng.normal(size=(4, 2, 3))
    rule = made(Adam(beta_1, 0.99), shapes=((2, 3),), rate=0.05)
    states = trajectory(rule, [start], [[g] for g in gradients])

    variable = keras.Variable(start)
    # Keras adds epsilon before the bias correction: small enough to make no difference.
    optimizer = keras.optimizers.Adam(0.05, beta_1=beta_1, beta_2=0.99, epsilon=1e-8)
    optimizer.build([variable])
    w, m, v = start, 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = beta_1 * m + (1 - beta_1) * g, 0.99 * v + 0.01 * g**2
        w = w - 0.05 * (m / (1 - beta_1**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        np.testing.assert_allclose(states[t - 1][0], w, rtol=1e-12)
        optimizer.apply([tf.constant(g)], [variable])
        np.testing.assert_allclose(variable.numpy(), w, rtol=1e-5)


def test_adam_has_the_settings_of_reptile_s_code_by_default():
    assert Adam().get_config().items() >= {"beta_1": 0.0, "beta_2": 0.999, "epsilon": 1e-8}.items()
    # Without a first moment, the first step is the rate, whatever the size of the gradient.
    ((w,),) = trajectory(made(Adam()), [[1.0, 1.0]], [[[1e3, -1e-3]]])
    np.testing.assert_allclose(w, [0.9, 1.1], rtol=1e-5)


# === In a learner ===


def test_momentum_and_rate_are_meta_learned(meta_gradient, numeric_gradient):
    learner = linear_learner(Momentum(0.6), inner_learning_rate=0.1, inner_steps=3)
    inputs, query_y = linear_tasks()

    def outer_loss(w, rate, momentum):
        losses = []
        for x, y, q, t in tasks_of(inputs, query_y):
            fast, velocity = w, 0.0
            for _ in range(3):
                velocity = momentum * velocity + mse_gradient(fast, x, y)
                fast = fast - rate * velocity
            losses.append(np.mean((q @ fast - t) ** 2))
        return np.mean(losses)

    rule = learner.inner_rule
    order = [learner.network.trainable_variables[0], rule.learning_rate, rule.momentum]
    assert [id(v) for v in learner.trainable_variables] == [id(v) for v in order]
    expected = numeric_gradient(outer_loss, *(v.numpy() for v in order))
    for actual, value in zip(meta_gradient(learner, inputs, query_y), expected, strict=True):
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(actual, value, rtol=1e-6, atol=1e-9)


def test_schedules_are_meta_learned(meta_gradient, numeric_gradient):
    rule = Schedule(momentum=0.6, weight_decay=0.2)
    learner = linear_learner(rule, inner_learning_rate=0.1, inner_steps=3)
    inputs, query_y = linear_tasks()

    def outer_loss(w, rate, momentum, decay):
        losses = []
        for x, y, q, t in tasks_of(inputs, query_y):
            fast, velocity = w, 0.0
            for k in range(3):
                velocity = momentum[k] * velocity + mse_gradient(fast, x, y)
                fast = fast - rate[k] * velocity - rate[k] * decay[k] * fast
            losses.append(np.mean((q @ fast - t) ** 2))
        return np.mean(losses)

    order = [*learner.network.trainable_variables, rule.learning_rate, rule.momentum]
    order.append(rule.weight_decay)
    assert [id(v) for v in learner.trainable_variables] == [id(v) for v in order]
    expected = numeric_gradient(outer_loss, *(v.numpy() for v in order))
    for actual, value in zip(meta_gradient(learner, inputs, query_y), expected, strict=True):
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(actual, value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("first_order", [False, True])
def test_rates_per_step_have_the_meta_gradient_of_the_closed_form(first_order, meta_gradient):
    options = {"inner_steps": 3, "first_order": first_order}
    learner = linear_learner("per_layer_per_step", **options)
    rates = np.array([0.1, 0.02, 0.3])
    learner.inner_rule.learning_rates[0].assign(rates)
    inputs, query_y = linear_tasks()
    w = learner.network.get_weights()[0]
    by_start, by_rate = np.zeros_like(w), np.zeros(3)
    for x, y, q, t in tasks_of(inputs, query_y):
        hessian = 2 * x.T @ x / len(x)
        fast, gradients = w, []
        for rate in rates:
            gradients.append(mse_gradient(fast, x, y))
            fast = fast - rate * gradients[-1]
        # Backwards: from the derivative by the last step's weights to that by the first's.
        outer = mse_gradient(fast, q, t) / len(query_y)
        for k in (2, 1, 0):
            by_rate[k] -= np.sum(gradients[k] * outer)
            outer = outer if first_order else outer - rates[k] * hessian @ outer
        by_start += outer
    actual = meta_gradient(learner, inputs, query_y)
    np.testing.assert_allclose(actual[0], by_start, rtol=1e-10)
    np.testing.assert_allclose(actual[1], by_rate, rtol=1e-10)


def test_rates_per_layer_and_step_apply_to_their_layer_and_step():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(2, use_bias=False), keras.layers.Dense(1, use_bias=False)]
    network = keras.Sequential([keras.Input((3,)), *layers])
    learner = tfmeta.MAML(network, inner_steps=2, inner_loss="mse", inner_rule="per_layer_per_step")
    rates = np.array([[0.1, 0.03], [0.2, -0.05]])
    for variable, of_layer in zip(learner.inner_rule.learning_rates, rates, strict=True):
        variable.assign(of_layer)
    inputs, _ = linear_tasks()
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    a, b = network.get_weights()
    for k in range(2):
        outer = 2 * (x @ a @ b - y) / len(x)
        a, b = a - rates[0, k] * x.T @ outer @ b.T, b - rates[1, k] * (x @ a).T @ outer
    for actual, expected in zip(learner.adapt(x, y).get_weights(), (a, b), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_adam_descends_through_the_inner_loop():
    learner = linear_learner(Adam(0.9, 0.9), inner_learning_rate=0.1, test_inner_steps=3)
    inputs, _ = linear_tasks()
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    w, m, v = learner.network.get_weights()[0], 0.0, 0.0
    for t in (1, 2, 3):
        g = mse_gradient(w, x, y)
        m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g**2
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
    np.testing.assert_allclose(learner.adapt(x, y).get_weights()[0], w, rtol=1e-10)


def test_adam_takes_its_first_step_in_bfloat16_too():
    rule = Adam()
    rule.make([], 0.1, 1)
    weights, gradients = ([tf.constant(x, "bfloat16")] for x in ([1.0, 2.0], [0.5, 0.0]))
    (after,), _ = rule.update(weights, gradients, None, rule.start(weights), 0)
    np.testing.assert_allclose(after.numpy().astype("float32"), [0.9, 2.0], rtol=2**-8)


# === More steps than there are rates for ===

TOO_MANY = "PerLayerPerStep is defined for up to 2 inner steps, those of meta-training; got 3"


def test_more_steps_than_rates_are_refused_at_construction():
    with pytest.raises(ValueError, match=TOO_MANY):
        linear_learner("per_layer_per_step", inner_steps=2, test_inner_steps=3)
    linear_learner("per_layer_per_step", inner_steps=2, test_inner_steps=1)


def test_more_steps_than_rates_are_refused_when_a_network_is_built_later():
    network = keras.Sequential([keras.layers.Dense(1)])
    learner = tfmeta.MAML(
        network, inner_steps=2, test_inner_steps=3, inner_rule="per_layer_per_step"
    )
    with pytest.raises(ValueError, match=TOO_MANY):
        learner(linear_tasks()[0])


def test_more_steps_than_rates_are_refused_in_evaluation():
    learner = linear_learner("per_layer_per_step", inner_steps=2)
    inputs, query_y = linear_tasks()
    assert learner.predict_by_step(inputs, 2).shape == (3, *query_y.shape)
    with pytest.raises(ValueError, match=TOO_MANY):
        learner.predict_by_step(inputs, 3)
    episodes = tf.data.Dataset.from_tensors((inputs, query_y))
    with pytest.raises(ValueError, match=TOO_MANY):
        tfmeta.evaluate(learner, episodes, n_episodes=2, inner_steps=3)


# === A user's own rule ===


@keras.saving.register_keras_serializable("test_inner_rules")
class Annealed(InnerRule):
    """θ' = θ − α γᵏ · loss · g, with γ meta-learned; remembers how many steps it took."""

    def make(self, weights, inner_learning_rate, inner_steps):
        super().make(weights, inner_learning_rate, inner_steps)
        self.decay = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(0.5), name="decay"
        )

    def start(self, weights):
        return tf.zeros((), "float64")

    def update(self, weights, gradients, loss, memory, step):
        rate = self.inner_learning_rate * self.decay.value**memory * loss
        return [w - rate * g for w, g in zip(weights, gradients, strict=True)], memory + 1


def annealed_loss(inputs, query_y):
    def outer_loss(w, decay):
        losses = []
        for x, y, q, t in tasks_of(inputs, query_y):
            fast = w
            for k in range(3):
                loss = np.mean((x @ fast - y) ** 2)
                fast = fast - 0.05 * decay**k * loss * mse_gradient(fast, x, y)
            losses.append(np.mean((q @ fast - t) ** 2))
        return np.mean(losses)

    return outer_loss


def test_a_user_s_rule_gets_the_loss_and_its_memory_and_is_meta_learned(
    meta_gradient, numeric_gradient
):
    learner = linear_learner(Annealed(), inner_learning_rate=0.05, inner_steps=3)
    inputs, query_y = linear_tasks()
    start = [v.numpy() for v in learner.trainable_variables]
    expected = numeric_gradient(annealed_loss(inputs, query_y), *start)
    for actual, value in zip(meta_gradient(learner, inputs, query_y), expected, strict=True):
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(actual, value, rtol=1e-6, atol=1e-9)


def test_a_rule_without_update_says_so():
    learner = linear_learner(InnerRule())
    with pytest.raises(NotImplementedError, match="InnerRule must implement update"):
        learner(linear_tasks()[0])


# === Files and configs ===


@pytest.mark.parametrize("rule", ["momentum", "per_parameter", "per_layer_per_step", Annealed()])
def test_meta_parameters_are_in_the_file(rule, tmp_path):
    learner = linear_learner(rule, inner_learning_rate=0.1, inner_steps=2)
    rng = np.random.default_rng(1)
    for variable in learner.inner_rule.trainable_variables:
        variable.assign(rng.uniform(0.01, 0.2, size=variable.shape))
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert type(loaded.inner_rule) is type(learner.inner_rule)
    saved = [v.numpy() for v in learner.inner_rule.trainable_variables]
    assert saved
    for value, variable in zip(saved, loaded.inner_rule.trainable_variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (Momentum(0.3), {"initial_momentum": 0.3}),
        (Adam(0.1, 0.2, 0.3), {"beta_1": 0.1, "beta_2": 0.2, "epsilon": 0.3}),
        (Annealed(name="mine"), {"name": "mine"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_rule_survives_its_config(rule, settings):
    for copy in (
        type(rule).from_config(rule.get_config()),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule)),
    ):
        assert type(copy) is type(rule) and copy is not rule
        assert {name: getattr(copy, name) for name in settings} == settings
        assert copy.get_config() == rule.get_config()


# === By name ===


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("sgd", SGD),
        ("momentum", Momentum),
        ("per_parameter", PerParameter),
        ("per_layer_per_step", PerLayerPerStep),
        ("adam", Adam),
    ],
)
def test_every_rule_has_a_name(name, rule):
    assert type(inner_rules.get(name)) is rule
    assert inner_rules.get(name) is not inner_rules.get(name)
    assert type(linear_learner(name).inner_rule) is rule


def test_a_rule_by_mapping_or_itself():
    rule = inner_rules.get({"name": "adam", "beta_1": 0.5, "epsilon": 1e-3})
    assert (rule.beta_1, rule.beta_2, rule.epsilon) == (0.5, 0.999, 1e-3)
    assert inner_rules.get(rule) is rule
    learner = linear_learner({"name": "momentum", "momentum": 0.25})
    assert float(learner.inner_rule.momentum) == 0.25
    options = {"name": "sgd"}
    inner_rules.get(options)
    assert options == {"name": "sgd"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("momentun", "There is no inner rule 'momentun'; did you mean 'momentum'?"),
        ("rprop", "There is no inner rule 'rprop'; expected one of .*'sgd', 'momentum'"),
        ({"momentum": 0.5}, "There is no inner rule None; expected one of"),
        ({"name": "momentum", "rate": 1}, "rate"),
        ({"name": "sgd", "momentum": 0.5}, "momentum"),
    ],
)
def test_an_unknown_rule_or_option_is_named(rule, message):
    with pytest.raises(ValueError, match=message):
        inner_rules.get(rule)


# === Defects that are known ===


def test_a_rule_has_the_float_type_of_its_network():
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    dense = keras.layers.Dense(1, use_bias=False, dtype="float64")
    inputs = keras.Input((3,), dtype="float64")
    network = keras.Model(inputs, dense(inputs))
    network.dtype_policy = keras.DTypePolicy("float64")
    learner = tfmeta.MAML(network, inner_loss="mse", inner_rule="per_parameter")
    inputs, _ = linear_tasks()
    assert learner(inputs).dtype == "float64"


def test_a_rule_object_of_two_learners_takes_each_one_s_rate():
    rule = SGD()
    linear_learner(rule, inner_learning_rate=0.1)
    try:
        learner = linear_learner(rule, inner_learning_rate=0.7)
    except ValueError:
        return  # To refuse it would be as good.
    assert learner.inner_rule.inner_learning_rate == 0.7
