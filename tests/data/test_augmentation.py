"""Augmented episodes stay pure functions of the seed and the index."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfmeta
from tfmeta.data.augmentation import ImageAugmentation

SHAPE = (12, 12, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.random((40, *SHAPE), dtype=np.float32)
SIZES = {"n_way": 3, "n_shot": 2, "n_query": 2, "seed": 4}


def layer():
    return layers.RandomTranslation(0.3, 0.3)


@pytest.fixture(scope="module")
def data():
    return tfmeta.data.load((IMAGES, np.arange(40) % 5))


def episodes(data, n, meta_batch_size=1, **options):
    """The first n episodes: a dictionary of arrays, with their index as the first axis."""
    batches = data.episodes(**{**SIZES, **options}, meta_batch_size=meta_batch_size)
    inputs = [element[0] for element in batches.take(n // meta_batch_size)]
    return {name: np.concatenate([part[name] for part in inputs]) for name in inputs[0]}


def assert_same(episodes, expected):
    for name, values in expected.items():
        np.testing.assert_array_equal(episodes[name], values, err_msg=name)


# === Purity ===


@pytest.fixture(scope="module")
def augmented(data):
    return episodes(data, 8, augment=layer())


def test_another_layer_and_meta_batch_size_have_the_same_pixels(data, augmented):
    augment = layer()
    augment(IMAGES, training=True)  # Its own state goes on, and does not matter.
    again = data.episodes(**SIZES, meta_batch_size=2, augment=augment)
    for _ in range(2):  # Each iteration begins anew.
        first = next(iter(again))[0]
        assert_same(first, {name: values[:2] for name, values in augmented.items()})


def test_a_resumed_run_and_a_worker_have_the_same_pixels(data, augmented):
    resumed = episodes(data, 3, augment=layer(), start=5)
    assert_same(resumed, {name: values[5:] for name, values in augmented.items()})
    share = episodes(data, 4, augment=layer(), shard=(1, 2))
    assert_same(share, {name: values[1::2] for name, values in augmented.items()})


def test_other_seeds_episodes_and_images_have_other_changes():
    same = tfmeta.data.load((np.repeat(IMAGES[:1], 20, axis=0), np.arange(20) % 5))
    found = [episodes(same, 2, augment=layer(), seed=seed) for seed in (0, 1)]
    images = np.concatenate([part[name] for part in found for name in ("support_x", "query_x")])
    images = images.reshape(-1, 144)
    assert len(images) == 4 * 12
    # Each image has random numbers of its own.
    assert len(np.unique(images.round(5), axis=0)) == len(images)


def test_padding_stays_empty(data):
    sizes = {"n_way": (2, 4), "n_shot": (1, 2)}
    plain = episodes(data, 6, **sizes)
    found = episodes(data, 6, **sizes, augment=layer())
    for part in ("support", "query"):
        mask = found[f"{part}_mask"]
        np.testing.assert_array_equal(mask, plain[f"{part}_mask"])
        assert 0 < mask.mean() < 1
        assert not found[f"{part}_x"][mask == 0].any()
        assert found[f"{part}_x"][mask == 1].any(axis=(1, 2, 3)).all()


# === What is augmented ===


def test_an_episode_keeps_its_classes_and_rows(data, augmented):
    plain = episodes(data, 8)
    np.testing.assert_array_equal(plain["support_y"], augmented["support_y"])
    for name in ("support_x", "query_x"):
        assert augmented[name].shape == plain[name].shape
        assert augmented[name].dtype == np.float32
        assert (augmented[name] >= 0).all()
        assert (augmented[name] <= 1).all()
        assert (augmented[name] != plain[name]).any(axis=(2, 3, 4)).all()
    # A flip of half of the images leaves the others, and moves the pixels of the flipped.
    flipped = episodes(data, 8, augment=layers.RandomFlip("horizontal"))["support_x"]
    before = plain["support_x"]
    is_same = (flipped == before).all(axis=(2, 3, 4))
    is_flipped = (flipped == before[:, :, :, ::-1]).all(axis=(2, 3, 4))
    assert (is_same ^ is_flipped).all()
    assert 0.2 < is_flipped.mean() < 0.8


def test_the_support_set_or_the_queries_can_be_augmented_alone(data, augmented):
    plain = episodes(data, 8)
    support = episodes(data, 8, augment={"support": layer()})
    assert_same(support, {**plain, "support_x": augmented["support_x"]})
    query = episodes(data, 8, augment={"query": layer()})
    assert_same(query, {**plain, "query_x": augmented["query_x"]})


def test_layers_that_draw_once_per_call_draw_for_each_image(data):
    crop = keras.Sequential([layers.ZeroPadding2D(3), layers.RandomCrop(12, 12)])
    seeds = RNG.integers(0, 2**31, (20, 2)).astype("int32")
    found = ImageAugmentation(crop, SHAPE)(np.ones((20, *SHAPE), np.float32), seeds)
    corners = {tuple(np.argwhere(image[..., 0])[0]) for image in found.numpy()}
    assert len(corners) > 5


def test_layers_in_a_sequence_draw_differently():
    """Two equal layers, each moving an image by -5 to 5 pixels, reach beyond 5."""
    one = layers.RandomTranslation(0, (-0.4, 0.4), fill_mode="constant", interpolation="nearest")
    two = layers.RandomTranslation(0, (-0.4, 0.4), fill_mode="constant", interpolation="nearest")
    line = np.zeros((60, *SHAPE), np.float32)
    line[:, :, 6] = 1
    seeds = RNG.integers(0, 2**31, (60, 2)).astype("int32")
    once = ImageAugmentation(one, SHAPE)(line, seeds).numpy()
    twice = ImageAugmentation(keras.Sequential([one, two]), SHAPE)(line, seeds).numpy()
    column = once[:, 0, :, 0].argmax(axis=1) - 6
    both = twice[:, 0, :, 0].argmax(axis=1) - 6
    is_inside = twice.any(axis=(1, 2, 3))
    second = (both - column)[is_inside]
    assert len(set(second)) > 4
    assert (second != column[is_inside]).mean() > 0.5


def test_functions_get_a_seed_for_each_image(data):
    def brighten(images, seed):
        return images * tf.random.stateless_uniform([], seed, 0.5, 1.0)

    found = episodes(data, 4, augment={"query": brighten})
    factors = found["query_x"] / episodes(data, 4)["query_x"]
    assert np.ptp(factors, axis=(2, 3, 4)).max() < 1e-5
    assert len(np.unique(factors[..., 0, 0, 0].round(5))) == 4 * 6
    inverted = ImageAugmentation(lambda images: 1 - images, SHAPE)
    seeds = np.zeros((40, 2), np.int32)
    np.testing.assert_array_equal(inverted(IMAGES, seeds), 1 - IMAGES)


@pytest.mark.parametrize(
    "augment",
    [
        layers.RandomBrightness(0.5, value_range=(0, 1)),
        keras.Sequential([layers.GaussianNoise(0.3), layers.ReLU(max_value=1)]),
        keras.Sequential([keras.Sequential([layers.RandomFlip()]), layers.Pipeline([layer()])]),
        *(
            pytest.param(augment, marks=pytest.mark.large)
            for augment in (
                layers.RandomContrast(0.5, value_range=(0, 1)),
                layers.RandomErasing(1.0, value_range=(0, 1)),
                layers.RandomRotation(0.2),
                layers.RandomZoom(0.3),
                layers.RandomShear(0.2, 0.2),
                layers.RandomInvert(0.5, value_range=(0, 1)),
                keras.Sequential([layers.Dropout(0.3), layers.ReLU(max_value=1)]),
            )
        ),
    ],
    ids=lambda augment: augment.name,
)
def test_keras_layers_keep_their_rules(augment):
    augmentation = ImageAugmentation(augment, SHAPE)
    seeds = RNG.integers(0, 2**31, (12, 2)).astype("int32")
    found = augmentation(IMAGES[:12], seeds).numpy()
    assert found.shape == (12, *SHAPE)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found != IMAGES[:12]).any()
    np.testing.assert_array_equal(augmentation(IMAGES[8:12], seeds[8:]), found[8:])


@pytest.mark.large
def test_a_learner_trains_on_augmented_episodes(data):
    learner = tfmeta.PrototypicalNetwork(
        keras.Sequential([keras.Input(SHAPE), layers.Flatten(), layers.Dense(4)])
    )
    learner.compile("adam", learner.default_loss())
    augmented = data.episodes(**SIZES, augment={"support": layers.RandomRotation(0.1)})
    history = learner.fit(augmented, steps_per_epoch=1, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


# === Refusals ===


FLIP = layers.RandomFlip()


class Unseeded(layers.Layer):
    def call(self, x):
        return x * keras.random.uniform([], 0.5, 1)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (lambda x: tf.image.random_flip_left_right(x), "uses operations with a state of their o"),
        (lambda x: x * keras.random.uniform([], 0.5, 1), "uses operations with a state of their"),
        (lambda x: FLIP(x, training=True), "pass layers themselves"),
        (Unseeded(), "uses operations with a state of their own"),
        (lambda x: x * random.random(), "it draws random numbers from Python or NumPy"),
        (lambda x: x * np.random.rand(), "it draws random numbers from Python or NumPy"),  # noqa: NPY002
        (lambda x: x * RNG.random(), "it draws random numbers from Python or NumPy"),
        (lambda x: tf.numpy_function(np.copy, [x], tf.float32), r"of their own \(.*PyFunc"),
        (
            layers.Resizing(8, 8),
            r"keep the shape of the images, \(12, 12, 1\); .*\(8, 8, 1",
        ),
        (lambda x: x[0], r"keep the shape of the images"),
        (
            lambda x: tf.cast(255 * x, tf.uint8),
            "must return pixels as floats .* returns uint8",
        ),
        (lambda x: 255 * x, r"keep pixels from 0 to 1; <lambda> makes values from 0 to 255"),
        (
            layers.GaussianNoise(0.2),
            "To clip those of noise, let keras.layers",
        ),
        (layers.Rescaling(2, offset=-1), "makes values from -1 to 1"),
        (lambda x: x / 0, r"keep pixels from 0 to 1; <lambda> makes values from nan to nan"),
        (layers.RandomBrightness(0.2), r"has value_range=\(0, 255\): make it with value_range=\(0"),
        (keras.Sequential([layers.RandomContrast(0.2)]), r"random_contrast.* has value_range=\(0,"),
        (layers.Conv2D(1, 3, padding="same"), "must have no weights; conv2d.* has some"),
        (layers.RandomHue(0.2, (0, 1)), r"of the shape \(12, 12, 1\); random_hue.* cannot"),
        (layers.RandomFlip(data_format="channels_first"), "has data_format=.channels_first"),
        (layers.MixUp(), "mixes images of different classes"),
        (keras.Sequential([FLIP, layers.CutMix()]), "mixes images of different cl"),
        ("flip", "must be a Keras layer, a function of images, or .* got 'flip'"),
        (
            {"queries": layers.RandomFlip()},
            r"the keys \"support\" or \"query\" or both; got \['que",
        ),
        ({}, r"the keys \"support\" or \"query\" or both; got none"),
        ({"support": None}, "must be a Keras layer, a function of images"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_no_pure_change_of_images_is_refused(data, augment, message):
    with pytest.raises(ValueError, match=message):
        data.episodes(**SIZES, augment=augment)


def test_data_that_are_no_images_are_refused():
    vectors = tfmeta.data.load((RNG.random((20, 4)), np.arange(20) % 5))
    with pytest.raises(ValueError, match=r"augment is for images .*; .* have the shape \(4,\)"):
        vectors.episodes(**SIZES, augment=layers.RandomFlip())


def test_episodes_without_augmentation_draw_and_do_nothing_more(data, monkeypatch):
    def never(*arguments):
        raise AssertionError("augmentation without augment=")

    monkeypatch.setattr("tfmeta.data.class_dataset.with_seeds", never)
    monkeypatch.setattr(ImageAugmentation, "__call__", never)
    assert episodes(data, 1)["support_x"].shape == (1, 6, *SHAPE)
