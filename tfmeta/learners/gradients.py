"""Gradients by a task's or a learner's weights: dense, and refused where TensorFlow has none."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfmeta import tensorflow_internals

# What to do about operations that are met in practice.
ADVICE = {
    "CudnnRNNBackprop": "make the LSTM or GRU with use_cudnn=False",
}


def gradients_of(tape: tf.GradientTape, loss: tf.Tensor, weights: Sequence[Any]) -> list[tf.Tensor]:
    """Returns the gradients of a loss, as dense tensors; zeros by weights that it does not use.

    TensorFlow gives the gradient by a table whose rows are looked up (`Embedding`,
    `keras.ops.take`) as `tf.IndexedSlices`, which inner rules cannot calculate with.

    Args:
        tape: tf.GradientTape. The tape that recorded the loss.
        loss: tf.Tensor, scalar.
        weights: list of tf.Tensor or keras.Variable.

    Raises:
        ValueError: If TensorFlow has no derivative of an operation.
    """
    with derivatives_explained():
        gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
    # This is the tensor itself, if it is dense.
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


@contextlib.contextmanager
def derivatives_explained() -> Iterator[None]:
    """Turns TensorFlow's error about an operation without a derivative into one sentence.

    Raises:
        ValueError: If TensorFlow has no derivative of an operation, or takes it for zero wrongly.
    """
    try:
        with tensorflow_internals.refusing_wrong_derivatives():
            yield
    except LookupError as error:
        found = re.search(r"no entry for: (\w+)|operation *'.*?' \(op type: (\w+)\)", str(error))
        if found is None and "explicitly disabled" not in str(error):
            raise
        operation = next(filter(None, found.groups()), None) if found is not None else None
        what = f"the operation {operation}" if operation else "an operation"
        ways = [advice for name, advice in ADVICE.items() if name in str(operation)]
        raise ValueError(
            f"TensorFlow has no derivative of {what}, which second-order meta-gradients need if a "
            "layer's own gradient is computed with it: "
            f"{', '.join([*ways, 'use first_order=True'])}, or put another layer in its place. "
            f"({' '.join(str(error).split())})"
        ) from error
