"""Functions of TensorFlow Addons beside Keras 3, against values by hand and in NumPy."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfmeta
from tfmeta import addons

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_addons") is None,
    reason="the extra tfmeta[addons] is not installed",
)
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(2, 6, 6, 1)).astype("float32")


# === Without the package ===


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "tensorflow_addons", raising=False)
    for section in addons.FUNCTIONS:
        monkeypatch.delitem(vars(addons), section, raising=False)
        with pytest.raises(ImportError, match=r"pip install 'tfmeta\[addons\]' with Python 3\.11;"):
            getattr(addons, section)


def test_other_sections_are_refused():
    message = "sections activations, image, losses; it has no 'layers'"
    with pytest.raises(AttributeError, match=message):
        addons.layers  # noqa: B018
    assert {*addons.FUNCTIONS} <= {*dir(addons)}


# === With the package ===


@needs_package
def test_all_functions_are_there_and_nothing_of_keras_2_stays():
    for section, functions in addons.FUNCTIONS.items():
        module = getattr(addons, section)
        assert all(callable(getattr(module, name)) for name in functions)
        with pytest.raises(AttributeError, match=rf"tfmeta\.addons\.{section} has no 'nonsense'"):
            module.nonsense  # noqa: B018
    assert "keras.src.engine" not in sys.modules
    assert "tf_keras" not in sys.modules
    assert tf.keras.Model is keras.Model


@needs_package
def test_images_are_turned_moved_cut_and_blended():
    quarter = addons.image.rotate(IMAGES, np.pi / 2)
    np.testing.assert_allclose(quarter, np.rot90(IMAGES, axes=(1, 2)), atol=1e-6)
    moved = addons.image.translate(IMAGES, [1, 2]).numpy()
    np.testing.assert_array_equal(moved[:, 2:, 1:], IMAGES[:, :-2, :-1])
    assert not moved[:, :2].any() and not moved[:, :, :1].any()
    cut = IMAGES.copy()
    cut[:, 2:4, 1:3] = 0
    np.testing.assert_array_equal(addons.image.cutout(IMAGES, (2, 2), offset=(3, 2)), cut)
    pixels = np.round(255 * IMAGES)
    blended = addons.image.blend(pixels, 255 - pixels, 0.25)
    np.testing.assert_allclose(blended, np.round(0.5 * pixels + 0.25 * 255))
    padded = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    means = addons.image.mean_filter2d(IMAGES)
    np.testing.assert_allclose(means, windows.mean(axis=(-2, -1)), rtol=1e-5)
    medians = addons.image.median_filter2d(IMAGES)
    np.testing.assert_allclose(medians, np.median(windows, axis=(-2, -1)), rtol=1e-5)


@needs_package
def test_a_transform_augments_episodes():
    def turned(images, seed):
        angle = tf.random.stateless_uniform([], seed, -0.5, 0.5)
        return addons.image.rotate(images, angle, interpolation="bilinear")

    x = RNG.uniform(size=(12, 8, 8, 1)).astype("float32")
    data = tfmeta.data.load((x, np.arange(12) % 3))
    options = {"n_way": 3, "n_shot": 1, "n_query": 2, "meta_batch_size": 1}
    (plain, _), (once, _), (again, _) = (
        next(iter(data.episodes(**options, augment=augment))) for augment in (None, turned, turned)
    )
    np.testing.assert_array_equal(once["support_x"], again["support_x"])
    assert np.abs(once["support_x"] - plain["support_x"]).max() > 0.1


def triplet_semihard_by_hand(labels, vectors, margin=1.0):
    """For each pair of a class, the nearest other farther than it, else the farthest other."""
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    losses = []
    for i, of_anchor in enumerate(distances):
        others = of_anchor[labels != labels[i]]
        for j in np.flatnonzero(labels == labels[i]):
            if i != j:
                farther = others[others > of_anchor[j]]
                negative = farther.min() if farther.size else others.max()
                losses.append(max(0, margin + of_anchor[j] - negative))
    return np.mean(losses)


@needs_package
def test_losses_and_activations_are_those_of_their_equations():
    labels = np.array([0, 1, 2, 0, 1, 2, 0])
    vectors = RNG.normal(size=(7, 3)).astype("float32")
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    loss = addons.losses.triplet_semihard_loss(labels, vectors)
    assert float(loss) == pytest.approx(triplet_semihard_by_hand(labels, vectors), rel=1e-5)
    contrastive = addons.losses.contrastive_loss(np.array([1.0, 0.0]), np.array([0.3, 0.4]))
    np.testing.assert_allclose(contrastive, [0.09, 0.36], rtol=1e-5)
    pinball = addons.losses.pinball_loss(np.array([[1.0]]), np.array([[3.0]]), tau=0.25)
    np.testing.assert_allclose(pinball, [1.5], rtol=1e-6)
    # The Euclidean projection on the simplex: (0.6, 0.4, 0) of (0.2, 0, -1).
    sparsemax = addons.activations.sparsemax(np.array([[0.2, 0.0, -1.0]], "float32"))
    np.testing.assert_allclose(sparsemax, [[0.6, 0.4, 0.0]], atol=1e-6)


@needs_package
def test_a_metric_loss_pretrains_an_encoder():
    keras.utils.set_random_seed(0)
    centres = 2 * RNG.normal(size=(4, 2)).astype("float32")
    labels = np.arange(80) % 4
    noise = 4 * RNG.normal(size=(80, 6)).astype("float32")
    x = np.concatenate([centres[labels], noise], axis=1)  # Most of it tells nothing.
    normalize = keras.layers.UnitNormalization()
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), normalize])
    encoder.compile(keras.optimizers.Adam(0.05), addons.losses.triplet_semihard_loss)
    history = encoder.fit(x, labels, batch_size=40, epochs=20, verbose=0).history["loss"]
    assert history[-1] < history[0] / 2
    learner = tfmeta.PrototypicalNetwork(encoder)
    episodes = tfmeta.data.load((x, labels)).episodes(n_way=4, n_shot=1, n_query=5, seed=0)
    assert tfmeta.evaluate(learner, episodes, n_episodes=40).estimate.mean > 0.8
