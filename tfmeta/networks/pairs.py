"""Pairs of examples as the input of one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Pairs(NamedTuple):
    """Each of N examples with each of M classes, as the input of a network.

    The network sees one tensor, `joined()`. Its convolution is linear in the channels, so it
    can be computed from the classes and from the examples, and then added up for each pair: M + N
    products instead of 2 · M · N.
    """

    classes: tf.Tensor  # [M, *x, channels]
    examples: tf.Tensor  # [N, *x, channels]

    def joined(self) -> tf.Tensor:
        """Returns `[N·M, *x, 2·channels]`, the class's channels before the example's."""
        classes = tf.repeat(self.classes[None], tf.shape(self.examples)[0], axis=0)
        examples = tf.repeat(self.examples[:, None], tf.shape(self.classes)[0], axis=1)
        return _by_pair(tf.concat([classes, examples], axis=-1))

    def convolved(self, kernel: tf.Tensor, convolve: Callable[..., tf.Tensor]) -> tf.Tensor:
        """Returns `convolve(joined(), kernel)`, `[N·M, *y]`, up to rounding."""
        of_classes, of_examples = tf.split(tf.convert_to_tensor(kernel), 2, axis=-2)
        examples = convolve(self.examples, of_examples)
        return _by_pair(convolve(self.classes, of_classes) + examples[:, None])


def _by_pair(x: tf.Tensor) -> tf.Tensor:
    """Reshapes `[N, M, *x]` to `[N·M, *x]`."""
    return tf.reshape(x, tf.concat([[-1], tf.shape(x)[2:]], axis=0))
