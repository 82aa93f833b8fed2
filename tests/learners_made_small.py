"""Tiny learners of every kind, and what tests of them share. Add a new learner here."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import pytest

import tfmeta
from tfmeta import backbones

MODES = ("transductive", "support", "running")
N_WAY = 3

_STEPS = {"inner_learning_rate": 0.1, "inner_steps": 2}
_GENERATOR = {"n_code": 2, "n_noise": 3}
# By the learner's name. Recipes can have them, too.
OPTIONS: dict[str, dict[str, Any]] = {
    "amortized_maml": {"inner_learning_rate": 0.1, "inner_steps": 1, "samples": 2},
    "anil": _STEPS,
    "baseline_plus_plus": {"steps": 3, "learning_rate": 0.1},
    "cavia": _STEPS,
    "cosine_prototypical_network": {},
    "fine_tuning": {"steps": 2, "learning_rate": 0.05},
    # Without draws, which differ with the order and with padding, and with nothing but small
    # penalties.
    "leo": {
        "n_latent": 3,
        "inner_steps": 2,
        "finetuning_steps": 1,
        "finetuning_learning_rate": 0.1,
        "sample": False,
        "dropout_rate": 0.0,
        "orthogonality_weight": 0.0,
    },
    "logistic_head": {"newton_steps": 6},
    "mahalanobis_head": {},
    "maml": _STEPS,
    "maml_plus_plus": _STEPS,
    "matching_network": {},
    "meta_gan_maml": {**_STEPS, **_GENERATOR},
    "meta_gan_relation_network": _GENERATOR,
    "meta_lstm": {"inner_steps": 2, "hidden_units": 4, "input_bias": (-1, 0)},
    "meta_sgd": _STEPS,
    "prototypical_network": {},
    "relation_network": {},
    "reptile": _STEPS,
    "ridge_head": {},
    "simple_shot": {},
}
HEADS = (
    *("baseline_plus_plus", "cosine_prototypical_network", "fine_tuning", "leo"),
    *("logistic_head", "mahalanobis_head", "ridge_head", "simple_shot"),
)
# Other learners that version 0.1.0 did not have.
LATER = ("amortized_maml", "meta_gan_maml", "meta_gan_relation_network")


@dataclasses.dataclass(frozen=True)
class Networks:
    """Makes the networks that learners are made of.

    Args:
        network: Makes a network with `n_way` outputs.
        encoder: Makes a network that ends in features.
        network_with_context: Makes CAVIA's network.
        relation_encoder: Makes Relation Network's encoder. Defaults to `encoder`.
        relation_module: Makes Relation Network's other network. Defaults to its own default.
        n_way: int. Outputs of ANIL's head. Defaults to 3.
        generator: Makes MetaGAN's generator. Defaults to its own default.
    """

    network: Callable[[], keras.Model]
    encoder: Callable[[], keras.Model]
    network_with_context: Callable[[], keras.Model]
    relation_encoder: Callable[[], keras.Model] | None = None
    relation_module: Callable[[], keras.Model] | None = None
    n_way: int = N_WAY
    generator: Callable[[], keras.Model] | None = None


def make_learner(name: str, networks: Networks, **options: Any) -> tfmeta.MetaLearner:
    """Makes a learner by its name, with `OPTIONS` and others."""
    arguments: list[Any]
    if name == "anil":
        arguments = [networks.encoder(), networks.n_way]
    elif name == "cavia":
        arguments = [networks.network_with_context()]
    elif name in ("relation_network", "meta_gan_relation_network"):
        arguments = [(networks.relation_encoder or networks.encoder)()]
        if networks.relation_module is not None:
            arguments.append(networks.relation_module())
    elif name in ("matching_network", "prototypical_network", *HEADS):
        arguments = [networks.encoder()]
    else:
        arguments = [networks.network()]
    if name.startswith("meta_gan") and networks.generator is not None:
        options = {"generator": networks.generator(), **options}
    return tfmeta.learners.get(name)(*arguments, **{**OPTIONS[name], **options})


def each_with_one_mode(values: Iterable[Any]) -> list[Any]:
    """Parameters (value, mode): each value in one mode; the large tier has the other modes."""
    return [
        pytest.param(value, mode, marks=[] if i % len(MODES) == j else [pytest.mark.large])
        for i, value in enumerate(values)
        for j, mode in enumerate(MODES)
    ]


def most_are_large(values: Iterable[Any], few: Iterable[Any]) -> list[Any]:
    """Parameters, of which the default tier has a few; the large tier has the others.

    Args:
        values: iterable. A mapping gives its values, with its keys as their names.
        few: iterable. Those for the default tier; keys, if `values` is a mapping.
    """
    named = values if isinstance(values, Mapping) else {value: value for value in values}
    few = set(few)
    assert few <= named.keys()
    return [
        pytest.param(
            value,
            id=name if isinstance(name, str) else None,
            marks=[] if name in few else [pytest.mark.large],
        )
        for name, value in named.items()
    ]


# === Dense networks, for examples of the shape (4,) ===


def dense_encoder() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((4,)),
            # A bias would have no gradient but rounding, which Adam as inner rule blows up.
            keras.layers.Dense(8, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
        ]
    )


def dense_network(n_outputs: int = N_WAY) -> keras.Model:
    return keras.Sequential([*dense_encoder().layers, keras.layers.Dense(n_outputs)])


def plain_network(n_outputs: int = 1) -> keras.Model:
    """A network without batch norm."""
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(n_outputs)]
    )


def dense_network_with_context(n_outputs: int = N_WAY, batch_norm: bool = True) -> keras.Model:
    """Its context is the weights of the last layer, so that it can solve any task there."""
    x, context = keras.Input((4,)), keras.Input((8 * n_outputs,))
    hidden = keras.layers.Dense(8, use_bias=False)(x)
    if batch_norm:
        hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Activation("tanh")(hidden)
    weights = keras.layers.Reshape((8, n_outputs))(context)
    return keras.Model([x, context], keras.layers.Dot(axes=1)([hidden, weights]))


def dense_relation_module() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((16,)),
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def dense_generator() -> keras.Model:
    """Without a bias at its end, which batch norm of the fakes would undo."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(4, use_bias=False),
        ]
    )


DENSE = Networks(
    dense_network,
    dense_encoder,
    dense_network_with_context,
    relation_module=dense_relation_module,
    generator=dense_generator,
)


# === Convolutional networks ===


def conv_networks(
    n_way: int,
    shape: tuple[int, int, int],
    filters: int,
    larger_shape: tuple[int, int, int] | None = None,
    downsampling: str = "max_pool",
) -> Networks:
    """Networks of `tfmeta.backbones` for images.

    Args:
        n_way: int. Outputs of those that classify.
        shape: tuple of int. The shape of an image.
        filters: int. Filters of each convolution.
        larger_shape: tuple of int. The shape of an image for CAVIA and Relation Network, whose
            backbones need more than 14×14. Defaults to `shape`.
        downsampling: str. See `tfmeta.backbones.conv4`. Defaults to "max_pool".
    """
    larger = larger_shape or shape
    return Networks(
        lambda: backbones.conv4(n_way, shape, filters, downsampling),
        lambda: backbones.conv4(None, shape, filters, downsampling),
        lambda: backbones.film_conv4(n_way, larger, filters=filters, n_context=3),
        relation_encoder=lambda: backbones.relation_encoder(larger, filters),
        n_way=n_way,
    )


# === What tests compute by hand ===


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Lets everything that is made meanwhile compute in float64."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def randomise(model: keras.Model, rng: np.random.Generator) -> keras.Model:
    """Gives a model random weights, of which variances and scales stay positive."""
    for variable in model.variables:
        values = rng.normal(size=variable.shape)
        positive = variable.name in ("moving_variance", "gamma")
        variable.assign(0.5 + values**2 if positive else values)
    return model


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over the first axis."""
    return x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0)


def meta_gradient(
    learner: tfmeta.MetaLearner, inputs: Any, query_y: Any, loss: Any = "mse"
) -> list[np.ndarray]:
    """Takes a training step by SGD at rate 1, undoes it, and returns what it subtracted."""
    learner.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=True)
    learner(inputs)
    before = learner.get_weights()
    start = [v.numpy() for v in learner.trainable_variables]
    learner.train_step((inputs, query_y))
    moved = [v.numpy() for v in learner.trainable_variables]
    learner.set_weights(before)
    return [a - b for a, b in zip(start, moved, strict=True)]
