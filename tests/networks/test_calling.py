"""Networks are called in episodes of one thread; for everybody else they are plain Keras."""

import threading

import keras
import numpy as np
import tensorflow as tf

import tfmeta
from tfmeta.networks import call_network, values_of
from tfmeta.networks.episode import Episode, current_episode, in_episode

X = np.random.default_rng(0).normal(loc=2, size=(5, 8, 8, 1)).astype("float32")


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )


def test_a_prepared_network_is_plain_keras_outside_of_episodes():
    plain, prepared = network(), network()
    tfmeta.MAML(prepared)
    for training in (False, True):
        np.testing.assert_array_equal(
            prepared(X, training=training).numpy(), plain(X, training=training).numpy()
        )
    for a, b in zip(prepared.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_preparing_a_network_again_changes_nothing():
    model = network()
    tfmeta.MAML(model)
    methods = [dict(vars(layer)) for layer in model.layers]
    tfmeta.PrototypicalNetwork(model)
    assert [vars(layer).get("call") for layer in model.layers] == [m.get("call") for m in methods]


def test_a_thread_that_calls_the_encoder_directly_sees_plain_keras():
    """One thread stays inside an episode all the time while another calls the network."""
    model = network()
    expected = network()(X).numpy()
    inside, done = threading.Event(), threading.Event()
    seen = []

    class Waits(keras.layers.Layer):
        def call(self, x):
            if current_episode() is not None:
                inside.set()
                assert done.wait(60)
            return x

    waiting = keras.Sequential([keras.Input((8, 8, 1)), model, Waits()])

    def in_an_episode():
        outputs, _ = call_network(waiting, *values_of(waiting), X, normalization="batch")
        seen.append(outputs.numpy())

    thread = threading.Thread(target=in_an_episode)
    thread.start()
    try:
        assert inside.wait(60)
        np.testing.assert_array_equal(model(X).numpy(), expected)
        assert current_episode() is None
    finally:
        done.set()
        thread.join()
    assert np.abs(seen[0] - expected).max() > 0.1  # The episode normalised by its own statistics.


def test_a_thread_that_builds_a_model_meets_tensorflows_moments():
    """The exchange of `tf.nn.moments` belongs to the thread that is in an episode."""
    x = tf.constant([[1.0], [3.0]])

    def second_derivative():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                _, variance = tf.nn.moments(x, [0])
            gradient = inner.gradient(variance, x)[0]
        return outer.gradient(gradient, x).numpy().ravel().tolist()

    results = {}
    with in_episode(Episode("batch", None, None, None)):
        thread = threading.Thread(target=lambda: results.update(other=second_derivative()))
        thread.start()
        thread.join()
        results["own"] = second_derivative()
    assert results["own"] == [0.5, -0.5]
    assert results["other"] == [1.0, 0.0]  # TensorFlow's own, which takes the mean for a constant.


def test_layers_that_a_network_gets_later_are_told_as_well():
    model = keras.Sequential([keras.layers.Dense(4)])
    learner = tfmeta.PrototypicalNetwork(model)
    model.add(keras.layers.BatchNormalization())
    x = np.random.default_rng(1).normal(loc=5, size=(6, 4)).astype("float32")
    episode = {"support_x": x[None, :4], "support_y": np.array([[0, 0, 1, 1]]), "query_x": x[None]}
    learner(episode)
    features, _ = learner.support_features(tf.constant(x), None, training=False)
    np.testing.assert_allclose(features.numpy().mean(axis=0), np.zeros(4), atol=1e-5)
