"""Small learners of each kind, in modes of batch norm that can be served, and their exports."""

from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from learners_made_small import HEADS

import tfmeta
from tfmeta import backbones
from tfmeta.data import ImageFormat

SHAPE = (14, 14, 1)


def network():
    return backbones.conv4(5, SHAPE, 8)


def encoder():
    return backbones.conv4(None, SHAPE, 8)


LEARNERS = {
    "maml": lambda: tfmeta.MAML(
        network(), inner_learning_rate=0.1, inner_steps=2, batch_norm="support"
    ),
    "maml_plus_plus": lambda: tfmeta.MAMLPlusPlus(
        network(), inner_learning_rate=0.1, inner_steps=2, batch_norm="support"
    ),
    "meta_sgd": lambda: tfmeta.MetaSGD(
        network(), inner_learning_rate=0.1, inner_steps=2, batch_norm="running"
    ),
    "meta_lstm": lambda: tfmeta.MetaLSTM(network(), inner_steps=2, batch_norm="support"),
    "amortized_maml": lambda: tfmeta.AmortizedMAML(
        network(), inner_learning_rate=0.1, inner_steps=1, samples=2, batch_norm="support"
    ),
    "reptile": lambda: tfmeta.Reptile(network(), inner_steps=2, batch_norm="support"),
    "anil": lambda: tfmeta.ANIL(
        encoder(), 5, inner_learning_rate=0.1, inner_steps=2, batch_norm="support"
    ),
    "cavia": lambda: tfmeta.CAVIA(
        backbones.film_conv4(5, (28, 28, 1), 8),
        inner_learning_rate=0.1,
        inner_steps=2,
        batch_norm="support",
    ),
    "prototypical_network": lambda: tfmeta.PrototypicalNetwork(encoder(), batch_norm="support"),
    "matching_network": lambda: tfmeta.MatchingNetwork(encoder(), batch_norm="support"),
    "full_context": lambda: tfmeta.MatchingNetwork(
        encoder(), full_context=True, batch_norm="support"
    ),
    **{
        name: lambda name=name: tfmeta.learners.get(name)(encoder(), batch_norm="support")
        for name in HEADS
    },
    "relation_network": lambda: tfmeta.RelationNetwork(
        backbones.relation_encoder((28, 28, 1), 8), batch_norm="support"
    ),
    "meta_gan_maml": lambda: tfmeta.MetaGANMAML(
        network(), inner_learning_rate=0.1, n_code=2, n_noise=3, batch_norm="support"
    ),
    "meta_gan_relation_network": lambda: tfmeta.MetaGANRelationNetwork(
        backbones.relation_encoder((28, 28, 1), 8), n_code=2, n_noise=3, batch_norm="support"
    ),
    "maml_regression": lambda: tfmeta.MAML(
        backbones.mlp(), inner_learning_rate=0.01, inner_steps=2, inner_loss="mse"
    ),
}


def small_maml():
    """MAML of a single convolution, for tests that ask it hundreds of times."""
    layers = [keras.layers.Conv2D(4, 3, 2), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    ends = [keras.layers.Flatten(), keras.layers.Dense(5)]
    network = keras.Sequential([keras.Input(SHAPE), *layers, *ends])
    return tfmeta.MAML(network, inner_learning_rate=0.1, batch_norm="support")


def adapted():
    """A task of five classes that the small MAML has learned."""
    x = np.random.default_rng(0).random((5, *SHAPE), "float32")
    return small_maml().adapt(x, np.arange(5), ["ant", "bee", "cow", "dog", "elk"])


OTHERS = {"small_maml": small_maml, "adapted": adapted}
WITH_IMAGES = {"prototypical_network", "small_maml", "adapted"}


class Exported(NamedTuple):
    """A model, its weights before it was exported, and the folder of the version."""

    model: Any
    weights: list[np.ndarray]
    version: Path


def exported(name: str, folder: Path) -> Exported:
    """Exports a model by its name here, with the same weights in every process."""
    keras.utils.set_random_seed(0)  # Rounding changes some weights' answers more than others'.
    model = {**LEARNERS, **OTHERS}[name]()
    image_format = ImageFormat(*SHAPE) if name in WITH_IMAGES else None
    weights = model.get_weights()
    version = tfmeta.serving.export(model, folder / name, image_format=image_format)
    return Exported(model, weights, version)
