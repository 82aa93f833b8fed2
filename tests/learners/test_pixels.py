"""Pixels are floats from 0 to 1 wherever a learner takes them."""

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta.learners.adapted_model import AdaptedModel


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_pixels_as_integers_are_refused_as_load_would_have_scaled_them(dtype):
    pixels = np.arange(12).reshape(3, 4).astype(dtype)
    for learner in (
        tfmeta.PrototypicalNetwork(tfmeta.backbones.mlp(None, (4,), (5,))),
        tfmeta.MAML(tfmeta.backbones.linear(3, (4,)), inner_learning_rate=0.1),
    ):
        with pytest.raises(ValueError, match=rf"support_x must be floats; got {dtype}.*x / 255"):
            learner.adapt(pixels, np.arange(3))
        learner.adapt(pixels.astype("float32"), np.arange(3))


def test_an_adapted_model_refuses_pixels_as_integers():
    # Transductive batch norm needs the learner.
    layers = [keras.layers.Dense(3), keras.layers.BatchNormalization()]
    learner = tfmeta.PrototypicalNetwork(keras.Sequential([keras.Input((4,)), *layers]))
    adapted = learner.adapt(np.eye(3, 4, dtype="float32"), np.arange(3))
    assert isinstance(adapted, AdaptedModel)
    with pytest.raises(ValueError, match="must be floats; got uint8"):
        adapted(np.zeros((2, 4), "uint8"))


def test_networks_of_integers_take_any_integers():
    layers = [keras.layers.Embedding(9, 3), keras.layers.Flatten()]
    network = keras.Sequential([keras.Input((4,), dtype="int32"), *layers])
    tokens = np.arange(8).reshape(2, 4).astype("uint8")
    tfmeta.PrototypicalNetwork(network).adapt(tokens, np.arange(2)).predict(tokens, verbose=0)
