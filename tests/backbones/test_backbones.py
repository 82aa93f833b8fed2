"""Base networks: the published shapes, counted by hand."""

import keras
import numpy as np
import pytest

from tfmeta.backbones import conv4, linear, mlp


@pytest.mark.parametrize(
    ("options", "features", "parameters"),
    [
        # 3·3·1·64 + 3·(3·3·64·64) kernels, 4·64 shifts, 64·5 + 5 of the head; 4·2·64 averages.
        ({"input_shape": (28, 28, 1)}, 64, 576 + 110592 + 256 + 325 + 512),
        # Stride 2, same padding: 28 → 14 → 7 → 4 → 2.
        ({"input_shape": (28, 28, 1), "head": "flatten"}, 256, 576 + 110592 + 256 + 1285 + 512),
        # 84 → 42 → 21 → 10 → 5: the paper's 800 features.
        (
            {
                "input_shape": (84, 84, 3),
                "filters": 32,
                "downsampling": "max_pool",
                "head": "flatten",
            },
            800,
            864 + 27648 + 128 + 4005 + 256,
        ),
        # 28 → 14 → 7 → 3 → 1: the 64 features of Prototypical Networks.
        (
            {"input_shape": (28, 28, 1), "downsampling": "max_pool", "head": "flatten"},
            64,
            576 + 110592 + 256 + 325 + 512,
        ),
    ],
)
def test_conv4_has_the_published_shapes(options, features, parameters):
    network = conv4(n_way=5, **options)
    assert network.layers[-1].input.shape == (None, features)
    assert network.output_shape == (None, 5)
    assert network.count_params() == parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"downsampling": "pool"}, 'downsampling must be "stride" or "max_pool"'),
        ({"head": "max"}, 'head must be "mean" or "flatten"'),
        ({"input_shape": (28, 28)}, r"must be \(height, width, channels\)"),
        ({"input_shape": (15, 28, 1), "downsampling": "max_pool"}, "images of 16×16 or more"),
    ],
)
def test_conv4_refuses_a_wrong_option(options, message):
    with pytest.raises(ValueError, match=message):
        conv4(**{"n_way": 5, "input_shape": (28, 28, 1), **options})


def test_mlp_is_the_network_of_the_sinusoid():
    network = mlp()
    assert network.count_params() == (1 * 40 + 40) + (40 * 40 + 40) + (40 + 1)
    assert [layer.activation.__name__ for layer in network.layers[1:]] == ["relu", "relu", "linear"]


def test_linear_is_one_matrix_and_one_vector():
    network = linear(2, (8, 8, 1))
    kernel, bias = network.get_weights()
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(network(x), x.reshape(3, 64) @ kernel + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [conv4(3, (16, 16, 1)), mlp(3, (4,)), linear(3, (4,))])
def test_round_trip(network, tmp_path):
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    x = np.random.default_rng(0).normal(size=(3, *network.input_shape[1:]))
    np.testing.assert_array_equal(loaded(x), network(x))
