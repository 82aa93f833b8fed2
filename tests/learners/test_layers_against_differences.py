"""Meta-gradients through every differentiable layer and activation, against central differences.

TensorFlow has no second derivative of some operations, and wrong ones of others. Here each layer
lies behind weights that adapt, and the directional derivative of the meta-objective is compared
with differences of the meta-objective, in float64. `pytest -s --large` prints the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import tfmeta
from tests.learners_made_small import in_float64, meta_gradient

L = keras.layers


@dataclasses.dataclass(frozen=True)
class Row:
    """A layer of the table.

    Args:
        make: Makes the layer, or a function of symbolic tensors.
        shape: The shape of its input, for one example.
        before: Makes the layer with adapted weights that gives such inputs. Defaults to a dense
            one.
        float32: Whether TensorFlow computes it in float32 whatever its inputs are.
        tokens: Whether the network's inputs are integers. Defaults to False.
    """

    make: Callable[[], Any]
    shape: tuple[int, ...] = (6,)
    before: Callable[[], Any] | None = None
    float32: bool = False
    tokens: bool = False


def activation(name: str) -> Callable[[Any], Any]:
    # A layer's outputs have the shape of its inputs, but those of `glu` are half of them.
    return keras.activations.glu if name == "glu" else L.Activation(name)


def rows() -> dict[str, Row]:
    # `threshold` needs an argument.
    activations = set(dir(keras.activations)) - {"get", "serialize", "deserialize", "threshold"}
    sequence, image, volume = (5, 4), (4, 4, 2), (3, 3, 3, 2)
    table = {
        f"activation {name}": Row(lambda name=name: activation(name))
        for name in sorted(activations)
        if not name.startswith("_")
    }
    table |= {
        name: Row(make)
        for name, make in {
            "Dense": lambda: L.Dense(3),
            "EinsumDense": lambda: L.EinsumDense("ab,bc->ac", 3),
            "PReLU": lambda: L.PReLU("uniform"),
            "LeakyReLU": L.LeakyReLU,
            "ELU": L.ELU,
            "Softmax": L.Softmax,
            "BatchNormalization": L.BatchNormalization,
            "LayerNormalization": L.LayerNormalization,
            "RMSNormalization": L.RMSNormalization,
            "UnitNormalization": L.UnitNormalization,
            "Dropout": lambda: L.Dropout(0.3, seed=1),
            "AlphaDropout": lambda: L.AlphaDropout(0.3, seed=1),
            "GaussianNoise": lambda: L.GaussianNoise(0.3, seed=1),
            "GaussianDropout": lambda: L.GaussianDropout(0.3, seed=1),
            "Rescaling": lambda: L.Rescaling(2.0, 1.0),
            "RepeatVector": lambda: L.RepeatVector(2),
        }.items()
    }
    table |= {
        name: Row(make, sequence)
        for name, make in {
            "Attention": lambda: lambda x: L.Attention()([x, 2 * x]),
            "AdditiveAttention": lambda: lambda x: L.AdditiveAttention()([x, 2 * x]),
            "MultiHeadAttention": lambda: lambda x: L.MultiHeadAttention(2, 3)(x, x),
            "GroupQueryAttention": lambda: lambda x: L.GroupQueryAttention(3, 4, 2)(x, x),
            "LSTM": lambda: L.LSTM(3),
            "LSTM unrolled": lambda: L.LSTM(3, unroll=True),
            "GRU": lambda: L.GRU(3),
            "SimpleRNN": lambda: L.SimpleRNN(3),
            "Bidirectional": lambda: L.Bidirectional(L.GRU(3, return_sequences=True)),
            "StackedRNNCells": lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2)]),
            "TimeDistributed": lambda: L.TimeDistributed(L.Dense(3)),
            "Masking": lambda: lambda x: L.GRU(3)(L.Masking(0.0)(L.ReLU()(x))),
            "Conv1D": lambda: L.Conv1D(3, 2),
            "AdaptiveAveragePooling1D": lambda: L.AdaptiveAveragePooling1D(3),
            "AdaptiveMaxPooling1D": lambda: L.AdaptiveMaxPooling1D(3),
            "ConvLSTM1D": lambda: lambda x: L.ConvLSTM1D(2, 2)(keras.ops.stack([x, 2 * x], 1)),
            "Conv1D causal, dilated": lambda: L.Conv1D(3, 2, dilation_rate=2, padding="causal"),
            "Conv1DTranspose": lambda: L.Conv1DTranspose(3, 2),
            "SeparableConv1D": lambda: L.SeparableConv1D(3, 2),
            "DepthwiseConv1D": lambda: L.DepthwiseConv1D(2),
            "MaxPooling1D": lambda: L.MaxPooling1D(2),
            "AveragePooling1D": lambda: L.AveragePooling1D(2),
            "GlobalMaxPooling1D": L.GlobalMaxPooling1D,
            "GlobalAveragePooling1D": L.GlobalAveragePooling1D,
            "UpSampling1D": lambda: L.UpSampling1D(2),
            "ZeroPadding1D": lambda: L.ZeroPadding1D(1),
            "Cropping1D": lambda: L.Cropping1D(1),
            "SpatialDropout1D": lambda: L.SpatialDropout1D(0.3, seed=1),
            "Dot": lambda: lambda x: L.Dot(axes=2)([x, 2 * x]),
        }.items()
    }
    table |= {
        name: Row(make, image)
        for name, make in {
            "Conv2D": lambda: L.Conv2D(3, 2),
            "Conv2D strided": lambda: L.Conv2D(3, 2, strides=2, padding="same"),
            "Conv2D dilated": lambda: L.Conv2D(3, 2, dilation_rate=2),
            "Conv2DTranspose": lambda: L.Conv2DTranspose(3, 2, strides=2),
            "SeparableConv2D": lambda: L.SeparableConv2D(3, 2),
            "DepthwiseConv2D": lambda: L.DepthwiseConv2D(2),
            "GroupNormalization": lambda: L.GroupNormalization(2),
            "BatchNormalization of images": L.BatchNormalization,
            "MaxPooling2D": lambda: L.MaxPooling2D(2),
            "AveragePooling2D": lambda: L.AveragePooling2D(2),
            "AdaptiveAveragePooling2D": lambda: L.AdaptiveAveragePooling2D(3),
            "AdaptiveMaxPooling2D": lambda: L.AdaptiveMaxPooling2D(3),
            "GlobalMaxPooling2D": L.GlobalMaxPooling2D,
            "GlobalAveragePooling2D": L.GlobalAveragePooling2D,
            "UpSampling2D": lambda: L.UpSampling2D(2),
            "ZeroPadding2D": lambda: L.ZeroPadding2D(1),
            "Cropping2D": lambda: L.Cropping2D(1),
            "SpatialDropout2D": lambda: L.SpatialDropout2D(0.3, seed=1),
            "Permute": lambda: L.Permute((2, 1, 3)),
            "CenterCrop": lambda: L.CenterCrop(2, 2),
        }.items()
    }
    methods = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
    table |= {
        f"Resizing {method}": Row(
            lambda method=method: L.Resizing(5, 3, interpolation=method), image, float32=True
        )
        for method in methods
    }
    table |= {
        f"UpSampling2D {method}": Row(
            lambda method=method: L.UpSampling2D(2, interpolation=method), image, float32=True
        )
        for method in methods
    }
    table["Resizing, antialiased"] = Row(
        lambda: lambda x: keras.ops.image.resize(x, (2, 2), antialias=True), image, float32=True
    )
    table |= {
        name: Row(make, volume)
        for name, make in {
            "Conv3D": lambda: L.Conv3D(2, 2),
            "Conv3DTranspose": lambda: L.Conv3DTranspose(2, 2),
            "Cropping3D": lambda: L.Cropping3D(1),
            "ZeroPadding3D": lambda: L.ZeroPadding3D(1),
            "SpatialDropout3D": lambda: L.SpatialDropout3D(0.3, seed=1),
            "GlobalMaxPooling3D": L.GlobalMaxPooling3D,
            "GlobalAveragePooling3D": L.GlobalAveragePooling3D,
            "UpSampling3D": lambda: L.UpSampling3D(2),
            "ConvLSTM2D": lambda: L.ConvLSTM2D(2, 2),
        }.items()
    }
    # TensorFlow computes these in float32 only, on a CPU.
    table["Conv2D grouped"] = Row(
        lambda: L.Conv2D(4, 2, groups=2, dtype="float32"), image, float32=True
    )
    for name in (
        "MaxPooling3D",
        "AveragePooling3D",
        "AdaptiveAveragePooling3D",
        "AdaptiveMaxPooling3D",
    ):
        table[name] = Row(
            lambda name=name: getattr(L, name)(2, dtype="float32"), volume, float32=True
        )
    table |= {
        name: Row(lambda f=f: f)
        for name, f in {
            "ops.norm": lambda x: keras.ops.norm(x, axis=-1, keepdims=True),
            "ops.normalize": lambda x: keras.ops.normalize(x, axis=-1),
            "ops.logsumexp": lambda x: keras.ops.logsumexp(x, axis=-1, keepdims=True),
            "ops.prod": lambda x: keras.ops.prod(x, axis=-1, keepdims=True),
            "ops.cumsum": lambda x: keras.ops.cumsum(x, axis=-1),
            "ops.cumprod": lambda x: keras.ops.cumprod(x, axis=-1),
            "ops.max": lambda x: keras.ops.max(x, axis=-1, keepdims=True),
            "ops.sort": lambda x: keras.ops.sort(x, axis=-1),
            "ops.top_k": lambda x: keras.ops.top_k(x, 2)[0],
            "ops.moments": lambda x: keras.ops.moments(x, axes=[-1], keepdims=True)[1],
            "ops.var": lambda x: keras.ops.var(x, axis=-1, keepdims=True),
            "ops.std": lambda x: keras.ops.std(x, axis=-1, keepdims=True),
            "ops.erf": keras.ops.erf,
            "ops.exp": keras.ops.exp,
            "ops.expm1": keras.ops.expm1,
            "ops.log1p": lambda x: keras.ops.log1p(keras.ops.square(x)),
            "ops.sin": keras.ops.sin,
            "ops.arctan2": lambda x: keras.ops.arctan2(x, 1 + x * x),
            "ops.power": lambda x: keras.ops.power(1 + x * x, 1.5),
            "ops.rsqrt": lambda x: keras.ops.rsqrt(1 + x * x),
            "ops.logaddexp": lambda x: keras.ops.logaddexp(x, 2 * x),
            "ops.clip": lambda x: keras.ops.clip(x, -0.5, 0.5),
            "ops.where": lambda x: keras.ops.where(x > 0, x * x, 2 * x),
            "ops.take": lambda x: keras.ops.take(x, [0, 2, 2], axis=-1),
            "ops.take_along_axis": lambda x: keras.ops.take_along_axis(
                x, keras.ops.argsort(x, axis=-1), axis=-1
            ),
            "ops.flip, roll, tile": lambda x: keras.ops.tile(
                keras.ops.roll(keras.ops.flip(x, axis=-1), 1, axis=-1), [1, 2]
            ),
            "ops.outer product": lambda x: keras.ops.einsum("ni,nj->nij", x, x * x),
            "ops.det, inv": lambda x: keras.ops.linalg.inv(
                2 * keras.ops.eye(6, dtype="float64") + keras.ops.einsum("ni,nj->nij", x, x)
            ),
            "ops.cholesky": lambda x: keras.ops.linalg.cholesky(
                2 * keras.ops.eye(6, dtype="float64") + keras.ops.einsum("ni,nj->nij", x, x)
            ),
            "ops.fft": lambda x: keras.ops.fft((x, x * 0))[0],
        }.items()
    }
    tokens = (5,)
    table |= {
        "Embedding": Row(lambda: L.Flatten(), tokens, lambda: L.Embedding(9, 3), tokens=True),
        "Embedding, masked": Row(
            lambda: L.LSTM(3), tokens, lambda: L.Embedding(9, 3, mask_zero=True), tokens=True
        ),
        "Embedding, pooled by its mask": Row(
            L.GlobalAveragePooling1D,
            tokens,
            lambda: L.Embedding(9, 3, mask_zero=True),
            tokens=True,
        ),
    }
    return table


TABLE = rows()
# A few that need what tfmeta does about derivatives, for the default tier.
SAMPLE = ["activation softsign", "LayerNormalization", "UpSampling2D bilinear", "Embedding"]


def network(row: Row) -> keras.Model:
    """Weights that adapt, the layer, and more weights that adapt."""
    keras.utils.set_random_seed(0)
    if row.tokens:
        x = keras.Input(row.shape, dtype="int32")
        hidden = row.before()(x)
    else:
        x = keras.Input(row.shape)
        hidden = L.Dense(row.shape[-1], activation="tanh")(x)
    hidden = row.make()(hidden)
    hidden = L.Dense(3, activation="tanh")(L.Flatten()(hidden))
    model = keras.Model(x, L.Dense(2)(hidden))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(scale=0.7, size=variable.shape))
    return model


def task(row: Row) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(1)

    def examples(n: int) -> np.ndarray:
        if row.tokens:
            return rng.integers(0, 9, size=(1, n, *row.shape)).astype("int32")
        return rng.normal(size=(1, n, *row.shape))

    inputs = {
        "support_x": examples(4),
        "support_y": rng.normal(size=(1, 4, 2)),
        "query_x": examples(3),
    }
    return inputs, rng.normal(size=(1, 3, 2))


def directional_derivatives(row: Row) -> tuple[float, float]:
    """The derivative of the meta-objective in one direction: ours, and that of differences."""
    learner = tfmeta.MAML(
        network(row), inner_learning_rate=0.3, inner_steps=1, inner_loss="mse", batch_norm="running"
    )
    inputs, query_y = task(row)
    direction = [np.random.default_rng(2).normal(size=v.shape) for v in learner.trainable_variables]
    state = [v.numpy() for v in learner.variables]  # with the seeds of dropout
    gradient = meta_gradient(learner, inputs, query_y)
    ours = sum(np.sum(g * d) for g, d in zip(gradient, direction, strict=True))
    epsilon = 1e-3 if row.float32 else 1e-6

    def objective(step: float) -> float:
        for variable, value in zip(learner.variables, state, strict=False):
            variable.assign(value)
        for variable, d in zip(learner.trainable_variables, direction, strict=True):
            variable.assign_add(step * d)
        predictions = learner(inputs, training=True)
        return float(np.mean((np.asarray(predictions) - query_y) ** 2))

    return ours, (objective(epsilon) - objective(-epsilon)) / (2 * epsilon)


@pytest.fixture
def float64():
    with in_float64():
        yield


def check(name: str) -> None:
    row = TABLE[name]
    ours, differences = directional_derivatives(row)
    print(f"{name:32} {ours:15.9f} {differences:15.9f}")
    np.testing.assert_allclose(ours, differences, rtol=1e-2 if row.float32 else 1e-5)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_meta_gradient_through_a_layer_is_that_of_differences(name, float64):
    check(name)


@pytest.mark.large
@pytest.mark.parametrize("name", [name for name in TABLE if name not in SAMPLE])
def test_the_meta_gradient_through_every_layer_is_that_of_differences(name, float64):
    check(name)
