"""The one input and one output that a learner's network has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from tfmeta import keras_internals
from tfmeta.checks import check_model


def check_network(name: str, network: Any, n_inputs: int = 1) -> None:
    """Checks, as far as a network tells it before it is called, that it fits a learner.

    Args:
        name: str. The network's name in an error.
        network: keras.Model. The network.
        n_inputs: int. How many inputs it must have. Defaults to 1.

    Raises:
        ValueError: If it is no Keras model, or has other inputs, or not one output.
    """
    check_model(name, network)
    inputs = getattr(network, "input_shape", None)
    if inputs is None:
        # A subclass does not tell; what its `call` cannot do without does.
        parameters = list(inspect.signature(network.call).parameters.values())[1:]
        needed = [
            p.name
            for p in parameters
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        needed = [p for p in needed if p not in ("training", "mask")]
        if needed:
            raise ValueError(
                f"{name} must take one input, a tensor of examples [N, *x]; {network.name!r} also "
                f"takes {', '.join(needed)}: join the inputs into one, and split it in the network."
            )
    elif isinstance(getattr(network, "input", None), dict) or not (
        _is_shape(inputs) if n_inputs == 1 else _is_list_of_shapes(inputs, n_inputs)
    ):
        wanted = (
            "one input, a tensor of examples [N, *x]" if n_inputs == 1 else f"{n_inputs} inputs"
        )
        raise ValueError(
            f"{name} must take {wanted}; {network.name!r} takes inputs of the shapes {inputs}: "
            "join them into one, and split it in the network."
        )
    # A functional model of a list of one output tells that output's shape, but returns the list.
    outputs = getattr(network, "output", None)
    check_output(
        name,
        network,
        getattr(network, "output_shape", ()) if outputs is None else shape_of(outputs),
    )


def check_output(name: str, network: keras.Model, shape: Any) -> None:
    """Raises a ValueError if a network's output shape is that of several outputs.

    Args:
        name: str. The network's name in an error.
        network: keras.Model. The network.
        shape: tuple of int, or another nesting of them. The shape of what it returns.
    """
    if not _is_shape(shape):
        raise ValueError(
            f"{name} must return one output, a tensor; {network.name!r} returns outputs of the "
            f"shapes {shape}: choose one, by keras.Model(network.inputs[0], network.outputs[0])."
        )


def shape_of(outputs: Any) -> Any:
    """Returns the shape of a tensor, or the shapes of a nesting of tensors."""
    return keras.tree.map_structure(lambda x: tuple(getattr(x, "shape", ())), outputs)


def built_by_call(name: str, call: Callable[[Any], Any], example_shape: tuple[Any, ...]) -> Any:
    """Calls networks on symbolic examples, which builds them; returns what they return.

    Args:
        name: str. The network's name in an error.
        call: function. It calls the networks on examples.
        example_shape: tuple of int. The shape of an example.

    Raises:
        ValueError: If that fails.
    """
    try:
        return call(keras.Input(example_shape))
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name} must take one input, a tensor of examples; called on {example_shape} it "
            f"fails: {type(error).__name__}: {reason}"
        ) from error


def computes_in(network: keras.Model, dtype: str) -> bool:
    """Returns whether any layer of a network computes in a type."""
    return any(layer.compute_dtype == dtype for layer in keras_internals.layers_of(network))


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(n is None or isinstance(n, int) for n in shape)


def _is_list_of_shapes(shapes: Any, n: int) -> bool:
    return isinstance(shapes, list | tuple) and len(shapes) == n and all(map(_is_shape, shapes))
