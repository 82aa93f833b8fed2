"""Reptile's outer update, inner optimizers and batches against NumPy on the linear model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta.learners.inner_batches import support_batch

RATE, STEPS, EPSILON = 0.1, 4, 0.5


def learner_of(cls=tfmeta.Reptile, rate=RATE, steps=STEPS, **options):
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    return cls(network, inner_learning_rate=rate, inner_steps=steps, inner_loss="mse", **options)


def linear_tasks(n_tasks=3, n_support=6, n_query=5):
    rng = np.random.default_rng(0)
    shapes = {"support_x": (n_support, 3), "support_y": (n_support, 1), "query_x": (n_query, 3)}
    inputs = {k: rng.normal(size=(n_tasks, *shape)) for k, shape in shapes.items()}
    return inputs, rng.normal(size=(n_tasks, n_query, 1))


def descended(w, x, y, steps=STEPS, rate=RATE, rule="sgd", rows=None):
    """The weights after k steps of SGD, or of Adam without first moment."""
    second = 0.0
    for step in range(steps):
        x_k, y_k = (x, y) if rows is None else (x[rows[step]], y[rows[step]])
        direction = 2 * x_k.T @ (x_k @ w - y_k) / len(x_k)
        if rule == "adam":
            second = 0.999 * second + 0.001 * direction**2
            direction = direction / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
        w = w - rate * direction
    return w


def mean_way(w, inputs, **options):
    """mean φ̃ − φ over the tasks."""
    pairs = zip(inputs["support_x"], inputs["support_y"], strict=True)
    return np.mean([descended(w, x, y, **options) - w for x, y in pairs], axis=0)


def outer_update(learner, inputs, query_y, optimizer=None, loss="mse", **options):
    """What a training step adds to the kernel, and the loss that it reports."""
    optimizer = optimizer or keras.optimizers.SGD(EPSILON)
    learner.compile(optimizer, loss, run_eagerly=True)
    before = learner.network.get_weights()[0]
    value = learner.train_on_batch(inputs, query_y, **options)
    return learner.network.get_weights()[0] - before, value


# === Moments that are carried ===


def carried_by_hand(w, moments, inputs, steps=STEPS):
    """One meta-batch from (first, second, count): the mean way, and the mean of the moments."""
    ways, after = [], []
    for x, y in zip(inputs["support_x"], inputs["support_y"], strict=True):
        fast, (first, second, count) = w, moments
        for _ in range(steps):
            gradient = 2 * x.T @ (x @ fast - y) / len(x)
            first, second = 0.5 * first + 0.5 * gradient, 0.9 * second + 0.1 * gradient**2
            count += 1
            root = np.sqrt(second / (1 - 0.9**count)) + 1e-8
            fast = fast - RATE * first / (1 - 0.5**count) / root
        ways.append(fast - w)
        after.append((first, second))
    return np.mean(ways, axis=0), (*np.mean(after, axis=0), moments[2] + steps)


ADAM = {"name": "adam", "beta_1": 0.5, "beta_2": 0.9}


@pytest.mark.parametrize("mapping", ["loop", "vectorized"])
@pytest.mark.usefixtures("float64")
def test_moments_are_carried_from_meta_batch_to_meta_batch_and_saved(mapping, tmp_path):
    learner = learner_of(inner_rule=ADAM, carry_moments=True, task_mapping=mapping)
    learner.compile(keras.optimizers.SGD(EPSILON), "mse")
    inputs, query_y = linear_tasks()
    w, moments = learner.network.get_weights()[0], (np.zeros((3, 1)), np.zeros((3, 1)), 0)
    for i in range(3):
        if i == 2:  # As a resumed run goes on.
            learner.save(tmp_path / "learner.keras")
            learner = keras.models.load_model(tmp_path / "learner.keras")
        way, moments = carried_by_hand(w, moments, inputs)
        w = w + EPSILON * way
        learner.train_on_batch(inputs, query_y)
        np.testing.assert_allclose(learner.network.get_weights()[0], w, rtol=1e-10)
        by_name = dict(zip(("count", "first", "second"), learner.moments, strict=True))
        for name, expected in zip(("first", "second", "count"), moments, strict=True):
            np.testing.assert_allclose(by_name[name].numpy(), expected, rtol=1e-10)
    # A new task starts from the moments, and does not change them.
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    one = {name: values[:1] for name, values in inputs.items()}
    adapted = learner.adapt(x, y).get_weights()[0]
    np.testing.assert_allclose(adapted, w + carried_by_hand(w, moments, one)[0], rtol=1e-10)
    np.testing.assert_array_equal(by_name["count"].numpy(), 3 * STEPS)


def test_only_a_rule_with_memory_has_moments_to_carry():
    with pytest.raises(ValueError, match='such as "adam"; SGD has none'):
        learner_of(carry_moments=True)
    learner = learner_of(inner_rule="adam", carry_moments=True)
    learner.network.add(keras.layers.Dense(1))
    with pytest.raises(ValueError, match="moments belong to the weights of then"):
        learner.adapt(np.ones((2, 3), "float32"), np.ones((2, 1), "float32"))


# === The outer update ===


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_the_initialisation_moves_towards_the_mean_of_the_adapted_weights(rule):
    learner = learner_of(inner_rule=rule)
    inputs, query_y = linear_tasks()
    expected = EPSILON * mean_way(learner.network.get_weights()[0], inputs, rule=rule)
    assert np.abs(expected).min() > 1e-3
    update, _ = outer_update(learner, inputs, query_y)
    np.testing.assert_allclose(update, expected, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_with_a_step_of_one_it_arrives_where_a_single_task_does():
    learner = learner_of()
    inputs, query_y = linear_tasks(n_tasks=1)
    x, y = inputs["support_x"][0], inputs["support_y"][0]
    expected = learner.adapt(x, y).get_weights()[0]
    outer_update(learner, inputs, query_y, keras.optimizers.SGD(1.0))
    np.testing.assert_allclose(learner.network.get_weights()[0], expected, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_training_takes_its_own_number_of_steps():
    learner = learner_of(steps=2, test_inner_steps=5)
    inputs, query_y = linear_tasks()
    w = learner.network.get_weights()[0]
    update, _ = outer_update(learner, inputs, query_y)
    np.testing.assert_allclose(update, EPSILON * mean_way(w, inputs, steps=2), rtol=1e-10)
    w, x, y = w + update, inputs["support_x"][0], inputs["support_y"][0]
    expected = descended(w, x, y, steps=5)
    np.testing.assert_allclose(learner.adapt(x, y).get_weights()[0], expected, rtol=1e-10)


def test_the_graph_does_not_grow_with_the_inner_steps():
    inputs, _ = linear_tasks()
    support = inputs["support_x"][0].astype("float32"), inputs["support_y"][0].astype("float32")

    def n_nodes(steps):
        learner = learner_of(steps=steps, inner_rule="adam")
        adapt_task = tf.function(learner.adapt_task, autograph=False)
        graph = adapt_task.get_concrete_function(*support).graph.as_graph_def()
        return len(graph.node) + sum(len(f.node_def) for f in graph.library.function)

    assert n_nodes(50) == n_nodes(2)


@pytest.mark.usefixtures("float64")
def test_the_loss_reported_is_that_of_the_queries_before_the_update():
    learner = learner_of()
    inputs, query_y = linear_tasks()
    w = learner.network.get_weights()[0]
    errors = [
        np.mean((q @ descended(w, x, y) - t) ** 2)
        for x, y, q, t in zip(
            *(inputs[k] for k in ("support_x", "support_y", "query_x")), query_y, strict=True
        )
    ]
    _, loss = outer_update(learner, inputs, query_y)
    assert loss == pytest.approx(np.mean(errors), rel=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", ["mae", keras.losses.MeanSquaredError(reduction="sum")])
def test_queries_weights_and_reductions_do_not_change_the_outer_update(loss):
    inputs, query_y = linear_tasks()
    expected, _ = outer_update(learner_of(), inputs, query_y)
    weights = np.random.default_rng(1).uniform(size=(3, 5))
    others = {**inputs, "query_x": 2 + inputs["query_x"]}
    update, _ = outer_update(learner_of(), others, 3 * query_y, loss=loss, sample_weight=weights)
    np.testing.assert_allclose(update, expected, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_an_optimizer_that_scales_losses_makes_the_same_step():
    inputs, query_y = linear_tasks()
    expected, _ = outer_update(learner_of(), inputs, query_y)
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(EPSILON))
    update, _ = outer_update(learner_of(), inputs, query_y, scaling)
    np.testing.assert_allclose(update, expected, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_adam_as_outer_optimizer_moves_each_weight_by_its_rate_along_the_way():
    learner = learner_of()
    inputs, query_y = linear_tasks()
    way = mean_way(learner.network.get_weights()[0], inputs)
    update, _ = outer_update(learner, inputs, query_y, keras.optimizers.Adam(0.01))
    # In its first step, Adam divides by the size of what it gets.
    np.testing.assert_allclose(update, 0.01 * np.sign(way), rtol=1e-4)


def test_fit_with_adam_learns_the_tasks_that_all_are_one():
    learner = learner_of(rate=0.02, steps=3)
    learner.compile(keras.optimizers.Adam(0.1), "mse")
    x = np.random.default_rng(0).normal(size=(4, 10, 3)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [0.5]], "float32")
    inputs = {"support_x": x, "support_y": y, "query_x": x}
    data = tf.data.Dataset.from_tensors((inputs, y)).repeat()
    losses = learner.fit(data, steps_per_epoch=1, epochs=60, shuffle=False, verbose=0).history[
        "loss"
    ]
    assert losses[-1] < 0.01 * losses[0]
    np.testing.assert_allclose(learner.network.get_weights()[0].ravel(), [1, -2, 0.5], atol=0.1)


# === Batches ===


def rows_of(step, size, n=7, mask=None):
    """The row numbers of a batch, without those that its mask excludes."""
    rows = tf.range(n)
    batch, labels, used = support_batch(rows[:, None], 10 * rows, mask, step, size)
    batch = batch.numpy()[:, 0]
    np.testing.assert_array_equal(labels, 10 * batch)
    return batch if used is None else batch[used.numpy() > 0]


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_every_example_is_drawn_once_before_any_is_drawn_again(size):
    drawn = np.concatenate([rows_of(step, size) for step in range(21)])
    assert len(drawn) == 21 * size
    for start in range(0, len(drawn), 7):
        assert sorted(drawn[start : start + 7]) == list(range(7))
    assert drawn[:7].tolist() != list(range(7))


@pytest.mark.parametrize("size", [7, 8, 100, None])
@pytest.mark.parametrize("step", [0, 1, 5])
def test_a_batch_as_large_as_the_support_set_is_all_of_it(step, size):
    assert sorted(rows_of(step, size)) == list(range(7))
    mask = tf.constant([1, 0, 1, 1, 0, 1, 1], tf.float32)
    if size is not None:
        assert sorted(rows_of(step, size, mask=mask)) == [0, 2, 3, 5, 6]


@pytest.mark.parametrize("size", [2, 3, 5, 6])
def test_padding_in_between_leaves_the_batches_as_they_are(size):
    mask = np.array([0, 1, 1, 0, 0, 1, 1, 0, 1, 0])
    places = np.flatnonzero(mask)
    for step in range(6):
        padded = rows_of(step, size, n=10, mask=tf.constant(mask))
        assert sorted(padded) == sorted(places[rows_of(step, size, n=5)])
        if size < 5:
            np.testing.assert_array_equal(padded, places[rows_of(step, size, n=5)])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("padded", [False, True])
def test_every_inner_step_takes_its_own_batch(padded):
    learner = learner_of(inner_batch_size=2)
    inputs, query_y = linear_tasks()
    rows = [rows_of(step, 2, n=6) for step in range(STEPS)]
    expected = EPSILON * mean_way(learner.network.get_weights()[0], inputs, rows=rows)
    if padded:
        mask = np.zeros((3, 9))
        for task in range(3):
            mask[task, [1, 2, 4, 5 + task % 2, 7, 8]] = 1
        for name in ("support_x", "support_y"):
            values = np.full((3, 9, inputs[name].shape[-1]), 9.0)
            values[mask > 0] = inputs[name].reshape(18, -1)
            inputs[name] = values
        inputs["support_mask"] = mask
    update, _ = outer_update(learner, inputs, query_y)
    np.testing.assert_allclose(update, expected, rtol=1e-10)


# === Batch norm ===


@pytest.mark.usefixtures("float64")
def test_scale_and_shift_of_batch_norm_adapt_and_move():
    norm = keras.layers.BatchNormalization()
    network = keras.Sequential([keras.Input((3,)), norm])
    options = {"inner_steps": 1, "batch_norm": "support", "inner_loss": "mse"}
    learner = tfmeta.Reptile(network, inner_learning_rate=0.3, **options)
    rng = np.random.default_rng(0)
    inputs = {k: rng.normal(size=(2, 6, 3)) for k in ("support_x", "support_y", "query_x")}
    learner.compile(keras.optimizers.SGD(EPSILON), "mse", run_eagerly=True)
    learner.train_on_batch(inputs, inputs["query_x"])
    gammas, betas = [], []
    for x, y in zip(inputs["support_x"], inputs["support_y"], strict=True):
        h = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3)
        gammas.append(-0.3 * 2 * np.mean((h - y) * h, axis=0) / 3)
        betas.append(-0.3 * 2 * np.mean(h - y, axis=0) / 3)
    np.testing.assert_allclose(norm.gamma, 1 + EPSILON * np.mean(gammas, axis=0), rtol=1e-10)
    np.testing.assert_allclose(norm.beta, EPSILON * np.mean(betas, axis=0), rtol=1e-10)


# === Bad input ===


@pytest.mark.parametrize("rule", ["momentum", "per_parameter", "per_layer_per_step"])
def test_a_rule_with_meta_parameters_is_refused(rule):
    with pytest.raises(ValueError, match="Reptile cannot learn the meta-parameters of"):
        learner_of(inner_rule=rule)


def test_batches_without_examples_are_refused():
    with pytest.raises(ValueError, match="inner_batch_size"):
        learner_of(inner_batch_size=0)
