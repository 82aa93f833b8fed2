"""Fine-tuning: Adam's steps on the encoder by the loss of the augmented support set."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta

RNG = np.random.default_rng(0)
X, Y, Q = RNG.normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 1]), RNG.normal(size=(5, 4))


def dense_encoder(dtype="float64"):
    keras.utils.set_random_seed(1)
    layers = [keras.Input((4,), dtype=dtype), keras.layers.Dense(3, use_bias=False, dtype=dtype)]
    return keras.Sequential(layers)


def image_encoder():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Flatten(), keras.layers.Dense(8)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers])


def images(n, n_way=3):
    rng = np.random.default_rng(2)
    y = np.arange(n) % n_way
    x = rng.random((n_way, 8, 8, 1))[y] * 0.5 + rng.random((n, 8, 8, 1)) * 0.5
    return x.astype("float32"), y


# === Golden values, in NumPy ===


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def logits(weights, queries, scale):
    features = X @ weights
    means = np.stack([features[k == Y].mean(axis=0) for k in range(3)])
    return scale * unit(queries @ weights) @ unit(means).T


def loss(weights, scale):
    z = logits(weights, X, scale)
    return np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(Y)), Y])


def gradient(weights, scale, h=1e-6):
    result = np.zeros_like(weights)
    for i in np.ndindex(*weights.shape):
        step = np.zeros_like(weights)
        step[i] = h
        result[i] = (loss(weights + step, scale) - loss(weights - step, scale)) / (2 * h)
    return result


def test_the_steps_are_adams_by_finite_differences():
    encoder = dense_encoder()
    (start,) = encoder.get_weights()
    learner = tfmeta.FineTuning(encoder, learning_rate=0.1, steps=3, initial_scale=4.0)
    adapted = learner.adapt(X, Y)
    weights, first, second = start, 0.0, 0.0
    for t in (1, 2, 3):
        g = gradient(weights, 4.0)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        moved = (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        weights = weights - 0.1 * moved
    np.testing.assert_allclose(adapted(Q), logits(weights, Q, 4.0), rtol=0, atol=1e-6)
    assert np.abs(logits(weights, Q, 4.0) - logits(start, Q, 4.0)).max() > 0.1
    np.testing.assert_array_equal(encoder.get_weights()[0], start)
    assert loss(weights, 4.0) < loss(start, 4.0)


@pytest.mark.parametrize("options", [{"steps": 0}, {"learning_rate": 0.0}])
def test_without_tuning_it_is_the_cosine_prototypical_network(options):
    encoder = dense_encoder()
    tuned = tfmeta.FineTuning(encoder, **options).adapt(X, Y)
    plain = tfmeta.CosinePrototypicalNetwork(encoder).adapt(X, Y)
    np.testing.assert_array_equal(tuned(Q), plain(Q))


def test_frozen_weights_stay():
    keras.utils.set_random_seed(0)
    first, second = (keras.layers.Dense(3, use_bias=False) for _ in range(2))
    encoder = keras.Sequential([keras.Input((4,)), first, second])
    first.trainable = False
    learner = tfmeta.FineTuning(encoder, learning_rate=0.1, steps=2)
    state = learner.adapt_task(tf.constant(X, tf.float32), tf.constant(Y))
    (tuned,), (kept,) = state["statistics"].values()
    assert np.abs(tuned - second.kernel).max() > 0.01
    np.testing.assert_array_equal(kept, first.kernel)


# === Augmentation ===


def test_images_are_augmented_anew_in_each_step_and_always_alike():
    x, y = images(6)

    def predictions(layer, steps=3):
        learner = tfmeta.FineTuning(image_encoder(), learning_rate=0.01, steps=steps, augment=layer)
        return np.asarray(learner.adapt(x, y)(x))

    once = predictions(keras.layers.RandomTranslation(0.3, 0.3, seed=0))
    again = predictions(keras.layers.RandomTranslation(0.3, 0.3, seed=7))
    none = predictions(None)
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - none).max() > 1e-3

    learner = tfmeta.FineTuning(
        image_encoder(), augment=keras.layers.RandomTranslation(0.3, 0.3, fill_mode="constant")
    )
    first, other = (learner._augmented(tf.constant(x), tf.constant(step)) for step in (0, 1))
    assert (np.abs(first - other).max(axis=(1, 2, 3)) > 0.01).sum() >= 4
    # An image that is another's neighbour has the same random numbers.
    np.testing.assert_array_equal(learner._augmented(tf.constant(x[:3]), tf.constant(0)), first[:3])


def test_it_is_saved_with_its_augmentation(tmp_path):
    layer = keras.layers.RandomTranslation(0.3, 0.3, fill_mode="constant")
    learner = tfmeta.FineTuning(image_encoder(), learning_rate=0.01, steps=2, augment=layer)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.models.load_model(tmp_path / "learner.keras")
    assert loaded.augment.fill_mode == "constant"
    x, y = images(6)
    np.testing.assert_array_equal(loaded.adapt(x, y)(x), learner.adapt(x, y)(x))


# === The step size ===


def test_the_most_accurate_step_size_is_chosen(capsys):
    x, y = images(60)
    episodes = tfmeta.data.load((x, y)).episodes(
        n_way=3, n_shot=2, n_query=3, meta_batch_size=2, seed=0
    )
    layer = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant")
    learner = tfmeta.FineTuning(image_encoder(), steps=2, augment=layer)
    rates = [0.0, 0.3]
    best = learner.with_best_learning_rate(episodes, rates, n_batches=3, verbose=True)
    printed = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    measured = []
    for rate in rates:
        other = tfmeta.FineTuning(learner.encoder, steps=2, learning_rate=rate, augment=layer)
        measured.append(tfmeta.evaluate(other, episodes, n_episodes=6).mean)
    np.testing.assert_allclose(printed, measured, atol=1e-4)
    assert max(measured) > min(measured)
    assert best.learning_rate == rates[int(np.argmax(measured))]
    assert learner.learning_rate == 0.001
    for a, b in zip(best.get_weights(), learner.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# === Refusals ===


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate must be"),
        ({"steps": -1}, "steps must be"),
        ({"augment": keras.layers.RandomFlip()}, "augment is for images"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.FineTuning(dense_encoder(), **options)


def test_a_frozen_encoder_is_refused():
    encoder = dense_encoder()
    encoder.trainable = False
    with pytest.raises(ValueError, match=r"are frozen \(trainable=False\): thaw some"):
        tfmeta.FineTuning(encoder)


def test_no_candidate_is_refused():
    with pytest.raises(ValueError, match="at least one step size"):
        tfmeta.FineTuning(dense_encoder()).with_best_learning_rate(
            tf.data.Dataset.range(1), [], n_batches=1
        )
