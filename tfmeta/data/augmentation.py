"""Random changes of an episode's images that depend only on the seed and the index."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta import keras_internals
from tfmeta.data.class_episodes import Part
from tfmeta.data.pipeline import EpisodeRandom

Describe = Callable[[EpisodeRandom, Mapping[str, tf.Tensor]], tuple[Part, ...]]

PARTS = ("support", "query")
# Operations with a state that change no pixel.
HARMLESS = {"Assert", "Print", "PrintV2"}
# How far pixels may be from [0, 1] by rounding.
TOLERANCE = 1e-3


class ImageAugmentation:
    """A function of images and seeds: augments each image by its own random numbers.

    Keras's random layers draw from the state of a `keras.random.SeedGenerator`. Here each image has
    a state of its own in the place of this one, so the layer becomes a pure function.

    Args:
        augment: keras.Layer or function. Takes images `[1, height, width, channels]` in [0, 1] and
            returns the same shape. A function that draws random numbers has a parameter `seed`: an
            int32 `[2]` for TensorFlow's stateless functions.
        shape: (height, width, channels). The shape of an image.

    Raises:
        ValueError: If it changes the shape, leaves [0, 1], draws from a source without a seed,
            has weights, or mixes images.

    Example:

    >>> augmentation = ImageAugmentation(keras.layers.RandomTranslation(0.2, 0.2), (28, 28, 1))
    >>> images, seeds = tf.random.uniform([3, 28, 28, 1]), tf.constant([[0, 1], [7, 7], [0, 1]])
    >>> once, again = augmentation(images, seeds), augmentation(images[1:], seeds[1:])
    >>> bool(tf.reduce_all(once[1:] == again))
    True
    """

    def __init__(self, augment: Any, shape: tuple[int, ...]) -> None:
        if not (isinstance(augment, keras.Layer) or callable(augment)):
            raise ValueError(
                'augment must be a Keras layer, a function of images, or {"support": …, '
                f'"query": …}} of these; got {augment!r}.'
            )
        if len(shape) != 3:
            raise ValueError(
                "augment is for images of the shape (height, width, channels); the examples of "
                f"this data set have the shape {shape}."
            )
        self.augment = augment
        self.shape = shape
        self._name = getattr(augment, "name", None) or getattr(augment, "__name__", repr(augment))
        self._seed_states: list[keras.Variable] = []
        self._takes_seed = False
        try:
            if isinstance(augment, keras.Layer):
                self._prepare_layer(augment)
            else:
                self._takes_seed = "seed" in _parameters(augment)
            self._function = self._checked()
        except tf.errors.OpError as error:  # For example, a change of colours of grey images.
            raise ValueError(
                f"augment must change images of the shape {shape}; {self._name} cannot."
            ) from error

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Augments images.

        Args:
            images: float32 `[N, height, width, channels]` in [0, 1].
            seeds: int32 `[N, 2]`. A seed for each image.

        Returns:
            float32 `[N, height, width, channels]` in [0, 1].
        """
        augmented = tf.map_fn(
            lambda pair: self._function(*pair),
            (images, seeds),
            fn_output_signature=tf.TensorSpec(self.shape, tf.float32),
            parallel_iterations=16,
        )
        return tf.clip_by_value(augmented, 0, 1)

    def _augmented(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image, without clipping it."""
        images = image[None]
        if isinstance(self.augment, keras.Layer):
            states = [
                (variable, keras_internals.seed_state(variable, seed, number))
                for number, variable in enumerate(self._seed_states)
            ]
            with keras.StatelessScope(state_mapping=states):
                images = self.augment(images, training=True)
        elif self._takes_seed:
            images = self.augment(images, seed=seed)
        else:
            images = self.augment(images)
        images = tf.convert_to_tensor(images)
        if not images.dtype.is_floating:
            raise ValueError(
                f"augment must return pixels as floats from 0 to 1; {self._name} returns "
                f"{images.dtype.name}."
            )
        if not images.shape.is_compatible_with([1, *self.shape]):
            raise ValueError(
                f"augment must keep the shape of the images, {self.shape}; {self._name} returns "
                f"{tuple(images.shape[1:])}."
            )
        return tf.ensure_shape(tf.cast(images[0], tf.float32), self.shape)

    # === Checks ===

    def _prepare_layer(self, augment: keras.Layer) -> None:
        """Builds a layer and finds the states of its random numbers."""
        for layer in _parts(augment):
            if isinstance(layer, keras.layers.MixUp | keras.layers.CutMix):
                raise ValueError(
                    f"augment changes each image by itself, but {layer.name} mixes images of "
                    "different classes: leave it out."
                )
            value_range = getattr(layer, "value_range", (0, 1))
            if tuple(value_range) != (0, 1):
                raise ValueError(
                    f"Pixels are from 0 to 1, but {layer.name} has value_range="
                    f"{tuple(value_range)}: make it with value_range=(0, 1)."
                )
            if getattr(layer, "data_format", None) == "channels_first":
                raise ValueError(
                    f"Images are [height, width, channels], but {layer.name} has "
                    'data_format="channels_first": make it with "channels_last".'
                )
        if not augment.built:
            augment(tf.zeros([1, *self.shape]), training=True)
        self._seed_states = [v for v in augment.variables if keras_internals.is_seed_state(v)]
        if len(self._seed_states) < len(augment.variables):
            raise ValueError(
                f"augment must have no weights; {self._name} has some: apply it to the data "
                "before, or make it a part of the network."
            )

    def _checked(self) -> Any:
        """Compiles what was given. Raises a ValueError if it is not pure or leaves [0, 1]."""
        rng = np.random.default_rng(0)
        noise = rng.random((6, *self.shape), dtype=np.float32)
        images = np.concatenate([np.zeros_like(noise[:1]), np.ones_like(noise[:1]), noise])
        seeds = rng.integers(-(2**31), 2**31, (len(images), 2), dtype=np.int32)
        python, numpy = random.getstate(), repr(np.random.get_state(legacy=False))  # noqa: NPY002
        functions = self._traced(), self._traced()
        pairs = [*zip(tf.constant(images), tf.constant(seeds), strict=True)]
        first, second = (np.stack([f(*pair).numpy() for pair in pairs]) for f in functions)
        if (
            random.getstate() != python
            or repr(np.random.get_state(legacy=False)) != numpy  # noqa: NPY002
            or not np.array_equal(first, second, equal_nan=True)
        ):
            raise ValueError(
                f"augment cannot seed {self._name}, for it draws random numbers from Python or "
                "NumPy: use layers that draw from Keras, or a function with a parameter seed."
            )
        if not (first.min() >= -TOLERANCE and first.max() <= 1 + TOLERANCE):  # Also if NaN.
            raise ValueError(
                f"augment must keep pixels from 0 to 1; {self._name} makes values from "
                f"{first.min():.6g} to {first.max():.6g}. To clip those of noise, let "
                "keras.layers.ReLU(max_value=1) follow."
            )
        return functions[0]

    def _traced(self) -> Any:
        """Makes a compiled function of an image and a seed. Raises a ValueError if it has a state.

        Each call traces anew.
        """

        def augmented(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return self._augmented(image, seed)

        function = tf.function(augmented, autograph=False).get_concrete_function(
            tf.TensorSpec(self.shape, tf.float32), tf.TensorSpec([2], tf.int32)
        )
        stateful = {op.type for op in function.graph.get_operations() if op.op_def.is_stateful}
        if stateful - HARMLESS:
            raise ValueError(
                f"augment cannot seed {self._name}, for it uses operations with a state of their "
                f"own ({', '.join(sorted(stateful - HARMLESS))}): pass layers themselves, which "
                "draw from a keras.random.SeedGenerator, or a function with a parameter seed for "
                "tf.random.stateless_uniform and its like."
            )
        return function


def image_augmentations(augment: Any, shape: tuple[int, ...]) -> dict[str, ImageAugmentation]:
    """Reads the `augment` of `ClassDataset.episodes`.

    Args:
        augment: keras.Layer or function, or a mapping from "support" and "query" to these, or None.
        shape: tuple of int. The shape of an example.

    Returns:
        The augmentations of the parts that have one.

    Raises:
        ValueError: As `ImageAugmentation` does; or if the mapping has other keys, or none.
    """
    if augment is None:
        return {}
    if not isinstance(augment, Mapping):
        return dict.fromkeys(PARTS, ImageAugmentation(augment, shape))
    if not augment or not set(augment) <= set(PARTS):
        raise ValueError(
            'augment must have the keys "support" or "query" or both; got '
            f"{list(augment) or 'none'}."
        )
    return {part: ImageAugmentation(layer, shape) for part, layer in augment.items()}


def with_seeds(
    describe: Describe,
    random: EpisodeRandom,
    size: Mapping[str, tf.Tensor],
) -> tuple[Part, ...]:
    """Describes an episode, and draws a seed for each of its images.

    The seeds are drawn last, so that the rows are those of the episode without augmentation.

    Args:
        describe: function of the other two. What draws the episode.
        random: EpisodeRandom. The episode's random numbers.
        size: mapping from str to int32 scalars. The sizes of the episode.

    Returns:
        The parts of the episode, with `"seeds"`, int32 `[rows, 2]`.
    """
    return tuple(
        {**part, "seeds": random.bits([part["rows"].shape[0], 2])}
        for part in describe(random, size)
    )


def _parts(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layers of a `Sequential` or another container, and of those in it."""
    parts = getattr(layer, "layers", None)
    if not isinstance(parts, list | tuple):
        yield layer
        return
    for part in parts:
        yield from _parts(part)


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a function; none if Python does not know them."""
    try:
        return inspect.signature(function).parameters
    except ValueError:
        return {}
