"""Any image model of Keras as an encoder, with its preprocessing inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from tfmeta.backbones.image_inputs import check_image_shape, resized_rgb
from tfmeta.checks import check_model, check_one_of

PROBABILITIES = ("softmax", "sigmoid")


def from_keras(
    model: keras.Model,
    *,
    preprocess: Callable[[Any], Any] | None,
    input_shape: Sequence[int] | None = None,
    pooling: Literal["mean", "first"] = "mean",
    trainable: bool = False,
) -> keras.Model:
    """Makes an encoder of a model of `keras.applications`, of a KerasHub backbone or of your own.

    In the encoder, images in [0, 1] are resized to the model's size, a single channel is repeated
    three times, pixels are scaled to [0, 255], and `preprocess` is applied. The encoder shares the
    model's layers.

    Args:
        model: keras.Model. A functional model of RGB images, without a classifier: of
            `keras.applications`, one with `include_top=False`.
        preprocess: function or None. Takes RGB images from 0 to 255 and returns what the model was
            trained on: `keras.applications.resnet50.preprocess_input`, for example, or a layer,
            such as KerasHub's `ImageConverter`. It is called on a symbolic tensor, so it must use
            `keras.ops`. None says that the model takes images from 0 to 255, as EfficientNet,
            ConvNeXt and MobileNetV3 of `keras.applications` do.
        input_shape: (height, width, channels) or None. Shape of one image. Defaults to None: the
            model's own, which it must then tell.
        pooling: str. What becomes of a feature map `[N, height, width, features]` or of tokens
            `[N, tokens, features]`: their "mean", or the "first" token. Defaults to "mean".
        trainable: bool. Whether training changes the model's weights. False freezes the layers of
            `model`; True leaves them as they are. Defaults to False.

    Returns:
        A functional model from `[N, height, width, channels]` images in [0, 1] to `[N, features]`.

    Raises:
        ValueError: If the model takes other inputs than RGB images, returns probabilities, several
            outputs or no features, or `preprocess` fails.

    Example:

    >>> model = keras.applications.MobileNetV2(
    ...     include_top=False, weights=None, input_shape=(32, 32, 3)
    ... )
    >>> preprocess = keras.applications.mobilenet_v2.preprocess_input
    >>> from_keras(model, preprocess=preprocess, input_shape=(28, 28, 1)).output_shape
    (None, 1280)
    """
    check_model("model", model)
    check_one_of("pooling", pooling, ("mean", "first"))
    own_shape = _own_image_shape(model)
    shape = check_image_shape("input_shape", own_shape if input_shape is None else input_shape)
    inputs = keras.Input(shape, name="image")
    height, width = own_shape[0] or shape[0], own_shape[1] or shape[1]
    x = resized_rgb(inputs, (height, width))
    x = keras.layers.Rescaling(255.0, name="pixels")(x)
    if preprocess is not None:
        x = _preprocessed(preprocess, x)
    features = _pooled(_called(model, x), pooling)
    encoder = keras.Model(inputs, features, name=f"{model.name}_encoder")
    if not trainable:
        model.trainable = False
        encoder.trainable = False
    return encoder


def _own_image_shape(model: keras.Model) -> tuple[int | None, int | None, int]:
    """Returns the shape of the images that a model takes."""
    shapes = getattr(model, "input_shape", None)
    if isinstance(shapes, dict) and len(shapes) == 1:
        (shapes,) = shapes.values()
    elif isinstance(shapes, list) and len(shapes) == 1:
        (shapes,) = shapes
    if not (isinstance(shapes, tuple) and len(shapes) == 4 and shapes[3] == 3):
        raise ValueError(
            "model must be a functional model of RGB images [N, height, width, 3]; "
            f"{model.name!r} takes inputs of the shape {shapes}."
        )
    return shapes[1:]


def _preprocessed(preprocess: Callable[[Any], Any], x: keras.KerasTensor) -> keras.KerasTensor:
    try:
        made = preprocess(x)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            "preprocess must take a symbolic tensor of images, so write it with keras.ops or as a "
            f"layer; it fails: {type(error).__name__}: {reason}"
        ) from error
    if getattr(made, "shape", None) != x.shape:
        raise ValueError(
            f"preprocess must return images of the shape {x.shape}; got "
            f"{getattr(made, 'shape', type(made).__name__)}."
        )
    return made


def _called(model: keras.Model, x: keras.KerasTensor) -> keras.KerasTensor:
    """Calls a model on preprocessed images; returns its one output."""
    inputs = model.input
    outputs = model(dict.fromkeys(inputs, x) if isinstance(inputs, dict) else x)
    outputs = keras.tree.flatten(outputs)
    if len(outputs) != 1:
        raise ValueError(
            f"model must return one output; {model.name!r} returns {len(outputs)}: choose one, by "
            "keras.Model(model.inputs, model.outputs[0])."
        )
    activation = getattr(model.layers[-1], "activation", None)
    if len(outputs[0].shape) == 2 and getattr(activation, "__name__", "") in PROBABILITIES:
        raise ValueError(
            f"model must return features, but {model.name!r} returns the probabilities of "
            f"{outputs[0].shape[-1]} classes: make it without its classifier (include_top=False)."
        )
    return outputs[0]


def _pooled(x: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    rank = len(x.shape)
    if rank == 3 and pooling == "first":
        return x[:, 0]
    if rank == 3:
        return keras.layers.GlobalAveragePooling1D(name="mean")(x)
    if pooling == "first" and rank != 2:
        raise ValueError(f'pooling="first" is for tokens [N, tokens, features]; got {x.shape}.')
    if rank == 4:
        return keras.layers.GlobalAveragePooling2D(name="mean")(x)
    if rank != 2:
        raise ValueError(
            "model must return features [N, features], a feature map [N, height, width, features] "
            f"or tokens [N, tokens, features]; got {x.shape}."
        )
    return x
