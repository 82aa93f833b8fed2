"""Numbers that are not finite, which are never kept or averaged silently; half precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from learners_made_small import DENSE, N_WAY, make_learner, most_are_large, plain_network

import tfmeta

RNG = np.random.default_rng(0)
ALL = sorted(tfmeta.learners.BY_NAME)
X = RNG.normal(size=(6, 4)).astype("float32")


def tasks(n_tasks=2):
    x, queries = (RNG.normal(size=(n_tasks, n, 4)).astype("float32") for n in (6, 9))
    inputs = {"support_x": x, "support_y": np.tile(np.arange(6) % 3, (n_tasks, 1))}
    return {**inputs, "query_x": queries}, np.tile(np.arange(9) % N_WAY, (n_tasks, 1))


# === Adapting ===


@pytest.mark.parametrize("name", ["maml", "meta_sgd", "maml_plus_plus", "reptile"])
def test_adapting_that_diverges_names_the_step_and_the_rate(name):
    learner = make_learner(
        name, DENSE, inner_learning_rate=1e30, inner_steps=4, batch_norm="running"
    )
    with pytest.raises(
        ValueError, match=r"after inner step \d; lower inner_learning_rate \(now 1e"
    ):
        learner.adapt(X, np.arange(6) % 3)


def test_the_step_is_the_first_after_which_a_weight_is_not_finite():
    """The loss is (w·x)², and each step multiplies w by 1 − 2·1e10·x²: float32 ends at 3e38."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    network.set_weights([np.ones((1, 1))])
    learner = tfmeta.MAML(network, inner_learning_rate=0.5e10, inner_steps=9, inner_loss="mse")
    with pytest.raises(ValueError, match="not finite after inner step 4;"):
        learner.adapt(np.ones((2, 1)), np.zeros((2, 1)))


def test_finite_weights_whose_predictions_overflow_are_refused():
    learner = tfmeta.MAML(plain_network(N_WAY), inner_learning_rate=0.1)
    network = learner.network
    network.set_weights([1e25 * np.ones_like(w) for w in network.get_weights()])
    learner.network.layers[0].activation = keras.activations.linear
    with pytest.raises(ValueError, match="not finite"):
        learner.adapt(X, np.arange(6) % 3)


@pytest.mark.parametrize("name", ["maml", "prototypical_network"])
def test_weights_of_the_learner_that_are_nan_are_named(name):
    learner = make_learner(name, DENSE)
    kernel = learner.trainable_variables[0]
    kernel.assign(np.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"its own variable '.*kernel' is not finite"):
        learner.adapt(X, np.arange(6) % 3)


# === Training ===


@pytest.mark.parametrize(
    "name", most_are_large(ALL, {"anil", "cavia", "maml", "prototypical_network", "reptile"})
)
def test_a_step_that_is_not_finite_changes_no_weight(name):
    learner = make_learner(name, DENSE, batch_norm="running")
    learner.compile("adam", learner.default_loss(), run_eagerly=True)
    learner.train_on_batch(*tasks())
    before = learner.get_weights()
    inputs, query_y = tasks()
    inputs["support_x"][1, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"training step.* is not finite, and the weights stay"):
        learner.train_on_batch(inputs, query_y)
    for old, new in zip(before, learner.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", most_are_large(ALL, {"prototypical_network"}))
def test_a_step_that_is_skipped_leaves_no_trace_but_its_count(name):
    good, bad = [tasks() for _ in range(3)], tasks()
    bad[0]["support_x"][1, 0, 0] = np.nan

    def trained(batches, **options):
        keras.utils.set_random_seed(0)
        learner = make_learner(name, DENSE, batch_norm="running")
        learner.compile("adam", learner.default_loss(), metrics=["accuracy"], **options)
        data = tf.data.Dataset.from_generator(
            lambda: iter(batches),
            output_signature=tf.nest.map_structure(
                lambda a: tf.TensorSpec(a.shape, a.dtype), batches[0]
            ),
        )
        history = learner.fit(data, validation_data=data.take(1), verbose=0).history
        return learner, history

    skipping, history = trained([good[0], bad, bad, *good[1:]], skip_nonfinite=True)
    wanted, expected = trained(good)
    assert history.pop("skipped_steps") == [2]
    assert set(history) == set(expected)
    for name in ("loss", "val_loss", "val_accuracy"):
        assert history[name] == pytest.approx(expected[name], rel=1e-5)
    assert int(skipping.optimizer.iterations) == 3
    found = [*skipping.variables, *skipping.optimizer.variables]
    # Prototypes alone take one gradient for all tasks when no step may be skipped.
    for a, b in zip(found, [*wanted.variables, *wanted.optimizer.variables], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=a.path)


def test_skipping_needs_a_loss_that_is_a_mean_over_tasks():
    learner = tfmeta.MAML(plain_network(N_WAY), inner_learning_rate=0.1)
    learner.compile("sgd", lambda y, p: tf.reduce_max(p), skip_nonfinite=True, run_eagerly=True)
    learner.loss = None
    with pytest.raises(ValueError, match="skip_nonfinite needs a compiled loss that is a mean"):
        learner.train_on_batch(*tasks())


def test_fit_stops_at_the_step_and_names_it():
    learner = tfmeta.MAML(plain_network(N_WAY), inner_learning_rate=0.1)
    learner.compile("sgd", metrics=["accuracy"])
    batches = [tasks() for _ in range(4)]
    batches[2][0]["query_x"][0, 0, 0] = np.nan
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=(
            {k: tf.TensorSpec(v.shape, v.dtype) for k, v in batches[0][0].items()},
            tf.TensorSpec((2, 9), tf.int64),
        ),
    )
    with pytest.raises(ValueError, match=r"^The loss of training step 3 is not finite"):
        learner.fit(data, verbose=0)
    assert np.isfinite(learner.network.get_weights()[0]).all()


def test_a_gradient_that_is_not_finite_is_found_behind_a_finite_loss():
    bad = tf.custom_gradient(lambda x: (tf.identity(x), lambda g: g * np.inf))
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Lambda(lambda x: bad(x))]
    )
    learner = tfmeta.PrototypicalNetwork(network)
    learner.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="The loss's gradient of training step 1 is not finite"):
        learner.train_on_batch(*tasks())


def test_a_loss_that_is_no_sum_over_tasks_is_checked_too():
    network = plain_network(N_WAY)
    network.layers[0].kernel_regularizer = keras.regularizers.L2(0.1)
    network = keras.Sequential.from_config(network.get_config())
    learner = tfmeta.MAML(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    learner.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    inputs, query_y = tasks()
    assert np.isfinite(learner.train_on_batch(inputs, query_y))
    before = learner.get_weights()
    inputs["query_x"][0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="is not finite"):
        learner.train_on_batch(inputs, query_y)
    np.testing.assert_array_equal(before[0], learner.get_weights()[0])


# === Evaluating ===


@pytest.mark.parametrize("loss", [None, "mse"])
def test_an_episode_that_diverged_is_not_averaged_silently(loss):
    """As an accuracy, NaN would count as the first class."""
    learner = tfmeta.MAML(plain_network(N_WAY), inner_loss=loss)
    inputs, query_y = tasks(4)
    if loss:
        inputs["support_y"] = RNG.normal(size=(4, 6, N_WAY)).astype("float32")
        query_y = RNG.normal(size=(4, 9, N_WAY)).astype("float32")
    inputs["query_x"][2, 0, 0] = np.nan
    data = tf.data.Dataset.from_tensors((inputs, query_y))
    with pytest.warns(UserWarning, match="1 of 4 episodes diverged.*first those of episode 2"):
        result = tfmeta.evaluate(learner, data, 4)
    assert result.n_diverged == 1
    assert np.isnan(result.mean)
    assert np.isfinite(result.values[[0, 1, 3]]).all()
    # A query that is padding does not count.
    mask = np.ones((4, 9), "float32")
    mask[2, 0] = 0
    data = tf.data.Dataset.from_tensors((inputs, query_y, mask))
    assert np.isfinite(tfmeta.evaluate(learner, data, 4).mean)


# === Half precision ===


def in_float16(make):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return make()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("scale", [1e-4, 1, 300])
def test_an_inner_step_in_mixed_float16_is_that_of_float32(scale):
    """Gradients of 1e-8 are 0 in float16, and those of 1e5 infinite."""

    def adapted(dtype):
        network = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros", dtype=dtype)]
        )
        learner = tfmeta.MAML(network, inner_learning_rate=0.1 / scale**2, inner_loss="mse")
        return learner.adapt(X * scale, scale * X[:, :1]).get_weights()[0]

    expected = adapted("float32")
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(adapted("mixed_float16"), expected, rtol=0.01, atol=2e-3)


def test_meta_training_in_mixed_float16_moves_the_weights_as_float32_does():
    def moved(dtype):
        keras.utils.set_random_seed(0)
        network = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(8, activation="tanh", dtype=dtype),
                keras.layers.Dense(N_WAY, dtype=dtype),
            ]
        )
        learner = tfmeta.MAML(network, inner_learning_rate=0.1)
        learner.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        before = network.get_weights()[0]
        RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
        learner.train_on_batch(*tasks())
        return network.get_weights()[0] - before

    expected = moved("float32")
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(moved("mixed_float16"), expected, atol=0.02 * np.abs(expected).max())


def test_targets_beyond_float16_are_refused():
    learner = in_float16(lambda: tfmeta.MAML(plain_network(1), inner_loss="mse"))
    with pytest.raises(ValueError, match=r"finite in float16.*mixed_bfloat16.*got up to"):
        learner.adapt(X, 1e5 * X[:, :1])


def test_inner_steps_on_weights_in_float16_are_refused():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="float16")])
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        tfmeta.MAML(network, dtype="float16")


@pytest.mark.parametrize("name", ["prototypical_network", "matching_network"])
def test_large_features_in_float16_give_no_nan(name):
    """Their squared distances are infinite in float16."""
    layer = keras.layers.Dense(64, dtype="float16")
    learner = tfmeta.learners.get(name)(
        keras.Sequential([keras.Input((4,), dtype="float16"), layer]), dtype="float16"
    )
    x = (100 * X).astype("float16")
    y = np.arange(6) % 3
    inputs = {"support_x": x[None], "support_y": y[None], "query_x": x[None]}
    predictions = learner(inputs).numpy()[0]
    assert np.isfinite(predictions).all()
    adapted = learner.adapt(x, y).predict(x, verbose=0)
    np.testing.assert_array_equal(adapted.argmax(axis=-1), predictions.argmax(axis=-1))


# === Distances by products of matrices ===


@pytest.mark.parametrize("offset", [0, 1e4])
def test_distances_of_features_with_a_large_offset_keep_their_digits(offset):
    """Without centring, f·c of 1e8 would leave no digits for distances of 1."""
    x = RNG.normal(size=(8, 5)).astype("float32")
    y = np.arange(8) % 4
    encoder = keras.Sequential([keras.Input((5,)), keras.layers.Identity()])
    learner = tfmeta.PrototypicalNetwork(encoder)
    shifted = (x + np.float32(offset)).astype("float64")
    prototypes = np.stack([shifted[y == k].mean(axis=0) for k in range(4)])
    expected = -((shifted[:, None] - prototypes) ** 2).sum(axis=-1)
    x = shifted.astype("float32")
    inputs = {"support_x": x[None], "support_y": y[None], "query_x": x[None]}
    for predictions in (learner(inputs)[0], learner.adapt(x, y).predict(x, verbose=0)):
        np.testing.assert_allclose(predictions, expected, rtol=2e-3, atol=2e-3)
