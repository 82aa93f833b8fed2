"""The modules of the Relation Network: the published shapes, counted by hand."""

import keras
import numpy as np
import pytest

from tfmeta.backbones import relation_encoder, relation_module

# Scale, shift and two moving averages of 64 channels.
NORM = 4 * 64


def shapes(model):
    """The output shape of each layer that changes one, by the layer's name."""
    return {
        layer.name: tuple(layer.output.shape[1:])
        for layer in model.layers
        if layer.name.startswith(("conv", "pool", "flatten", "hidden", "score"))
    }


def maps(size):
    return (size, size, 64)


def types(model):
    return [type(layer).__name__ for layer in model.layers]


# === The published architecture ===


@pytest.mark.parametrize(
    ("shape", "sizes", "first_kernel"),
    [
        ((28, 28, 1), (26, 13, 11, 5, 5, 5), 3 * 3 * 1 * 64),
        ((84, 84, 3), (82, 41, 39, 19, 19, 19), 3 * 3 * 3 * 64),
    ],
)
def test_encoder_is_as_published(shape, sizes, first_kernel):
    encoder = relation_encoder(shape)
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4")
    assert shapes(encoder) == dict(zip(names, map(maps, sizes), strict=True))
    assert encoder.output_shape == (None, *maps(sizes[-1]))
    assert encoder.count_params() == first_kernel + 3 * (3 * 3 * 64 * 64) + 4 * NORM
    block = ["Conv2D", "BatchNormalization", "ReLU"]
    pooled = [*block, "MaxPooling2D"]
    assert types(encoder) == ["InputLayer", *pooled, *pooled, *block, *block]


@pytest.mark.parametrize(
    ("size", "sizes", "features"),
    [(5, (5, 2, 2, 1), 64), (19, (17, 8, 6, 3), 576)],
)
def test_module_is_as_published(size, sizes, features):
    module = relation_module((size, size, 64))
    assert module.input_shape == (None, size, size, 128)
    assert module.output_shape == (None, 1)
    expected = dict(zip(("conv1", "pool1", "conv2", "pool2"), map(maps, sizes), strict=True))
    assert shapes(module) == {**expected, "flatten": (features,), "hidden": (8,), "score": (1,)}
    kernels = 3 * 3 * 128 * 64 + 3 * 3 * 64 * 64
    assert module.count_params() == kernels + 2 * NORM + (features * 8 + 8) + (8 + 1)
    block = ["Conv2D", "BatchNormalization", "ReLU", "MaxPooling2D"]
    assert types(module) == ["InputLayer", *block, *block, "Flatten", "Dense", "Dense"]
    activations = [module.get_layer(name).activation.__name__ for name in ("hidden", "score")]
    assert activations == ["relu", "sigmoid"]


def test_sizes_and_padding_are_options():
    assert relation_encoder((28, 28, 1), filters=5).output_shape == (None, 5, 5, 5)
    module = relation_module((19, 19, 6), filters=7, hidden_units=3, padding="same")
    # 19 → 9 → 4.
    assert module.get_layer("pool2").output.shape == (None, 4, 4, 7)
    assert module.get_layer("hidden").kernel.shape == (4 * 4 * 7, 3)


@pytest.mark.parametrize(("size", "padding"), [(9, "same"), (10, "valid")])
def test_padding_is_left_out_where_the_maps_are_large_enough(size, padding):
    module = relation_module((size, 12, 2))
    assert {module.get_layer(name).padding for name in ("conv1", "conv2")} == {padding}


@pytest.mark.parametrize(
    ("make", "shape"), [(relation_encoder, (28, 28, 3)), (relation_module, (19, 19, 64))]
)
def test_weights_are_initialised_as_published(make, shape):
    keras.utils.set_random_seed(0)
    model = make(shape)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.epsilon == 1e-5
        if isinstance(layer, keras.layers.Conv2D):
            assert not layer.use_bias
            deviation = np.sqrt(2 / (3 * 3 * 64))
        elif isinstance(layer, keras.layers.Dense):
            np.testing.assert_array_equal(layer.bias, 1.0)
            deviation = 0.01
        else:
            continue
        kernel = layer.kernel.numpy()
        if kernel.size < 100:
            assert 0 < np.abs(kernel).max() < 5 * deviation
            continue
        # Four standard errors of a normal sample's mean and standard deviation.
        assert abs(kernel.mean()) < 4 * deviation / np.sqrt(kernel.size)
        assert kernel.std() == pytest.approx(deviation, rel=4 / np.sqrt(2 * kernel.size))
        # A normal distribution that is not cut off has 4.6 % beyond two deviations.
        share = (np.abs(kernel) > 2 * deviation).mean()
        assert share == pytest.approx(0.0455, abs=4 * np.sqrt(0.0455 / kernel.size))


# === Values ===


def correlation(x, kernel, padded):
    """A 3×3 convolution, position by position."""
    if padded:
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    n, height, width, _ = x.shape
    result = np.zeros((n, height - 2, width - 2, kernel.shape[-1]))
    for i in range(height - 2):
        for j in range(width - 2):
            result[:, i, j] = np.einsum("nhwc,hwcf->nf", x[:, i : i + 3, j : j + 3], kernel)
    return result


def pooled(x):
    height, width = (size // 2 * 2 for size in x.shape[1:3])
    x = x[:, :height, :width]
    return np.max([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)


def block(x, weights, padded):
    kernel, gamma, beta, mean, variance = weights
    x = gamma * (correlation(x, kernel, padded) - mean) / np.sqrt(variance + 1e-5) + beta
    return np.maximum(x, 0)


def with_random_weights(model):
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, size=w.shape) - 0.4 for w in model.get_weights()])
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(rng.uniform(0.5, 2, size=layer.moving_variance.shape))
    return model


def block_weights(model, number):
    layers = (model.get_layer(f"{part}{number}") for part in ("conv", "norm"))
    return [w for layer in layers for w in layer.get_weights()]


def test_encoder_computes_what_the_figure_shows():
    encoder = with_random_weights(relation_encoder((14, 15, 2), filters=3))
    x = expected = np.random.default_rng(1).normal(size=(2, 14, 15, 2))
    for number in (1, 2, 3, 4):
        expected = block(expected, block_weights(encoder, number), padded=number > 2)
        expected = pooled(expected) if number <= 2 else expected
    assert expected.any()
    np.testing.assert_allclose(encoder(x.astype("float32")), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "padded"), [(5, True), (10, False)])
def test_module_computes_what_the_figure_shows(size, padded):
    module = with_random_weights(relation_module((size, size + 2, 2), filters=3, hidden_units=4))
    x = np.random.default_rng(1).normal(size=(3, size, size + 2, 4))
    maps = x
    for number in (1, 2):
        maps = pooled(block(maps, block_weights(module, number), padded))
    kernel, bias, score_kernel, score_bias = [
        w for name in ("hidden", "score") for w in module.get_layer(name).get_weights()
    ]
    hidden = np.maximum(maps.reshape(3, -1) @ kernel + bias, 0)
    expected = 1 / (1 + np.exp(-(hidden @ score_kernel + score_bias)))
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(module(x.astype("float32")), expected, rtol=1e-4)


# === Errors ===


@pytest.mark.parametrize("shape", [(9, 28, 1), (28, 9, 1), (28, 28)])
def test_encoder_refuses_images_too_small(shape):
    with pytest.raises(ValueError, match=r"must be \(height, width, channels\) of 10×10 or more"):
        relation_encoder(shape)


@pytest.mark.parametrize(
    "options",
    [
        {"feature_shape": (3, 5, 64)},
        {"feature_shape": (5, 3, 64)},
        {"feature_shape": (5, 5)},
        {"feature_shape": (9, 10, 64), "padding": "valid"},
    ],
)
def test_module_refuses_maps_too_small(options):
    with pytest.raises(ValueError, match=r"must be \(h, w, channels\) of 4×4 or more \(10×10"):
        relation_module(**options)


def test_the_smallest_sizes_work():
    assert relation_encoder((10, 10, 1)).output_shape == (None, 1, 1, 64)
    assert relation_module((4, 4, 64)).get_layer("pool2").output.shape == (None, 1, 1, 64)
    large = relation_module((10, 10, 64), padding="valid")
    assert large.get_layer("pool2").output.shape == (None, 1, 1, 64)
