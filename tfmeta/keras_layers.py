"""The private interfaces of Keras's layers on which copies, recurrence and masks rest.

The others are in `keras_internals`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# === Copies ===

# What `compile` and `fit` leave in a model.
_TRAINING = {
    "compiled": False,
    "loss": None,
    "optimizer": None,
    "_compile_loss": None,
    "_compile_metrics": None,
    "_loss_tracker": None,
    "train_function": None,
    "test_function": None,
    "predict_function": None,
}
_LEFT_BY_TRAINING = {"history", "_compile_config", "_compiled_trainable_state"}


def blank_operation(operation: keras.Operation) -> Any:
    """Makes an object of the same class, without calling its constructor.

    Rests on `__new__` of Keras's base classes, which wraps the methods `build` and `quantize`.
    """
    base = keras.Layer if isinstance(operation, keras.Layer) else keras.Operation
    return base.__new__(type(operation))


def state_to_copy(operation: keras.Operation) -> dict[str, Any]:
    """Returns the attributes of a layer that a copy must have, but not those of its graph.

    Rests on the names of the attributes in which Keras keeps graphs, losses, and what `compile`
    makes; and on the wrappers of `build` and `quantize`, which belong to the one object.
    """
    left_out = {"build", "quantize", *_function_attributes()}
    fresh: dict[str, Any] = {
        "_inbound_nodes": [],
        "_outbound_nodes": [],
        "_losses": [],
        "_loss_ids": set(),
        "_losses_override": [],
        # The names of containers that were set on it, to which a copy's user may add.
        "_tracked": list(getattr(operation, "_tracked", [])),
    }
    if isinstance(operation, keras.Model):
        left_out |= _LEFT_BY_TRAINING
        fresh.update(_TRAINING)
    return {
        name: fresh.get(name, value)
        for name, value in vars(operation).items()
        if name not in left_out and not _is_replacement(value)
    }


def _is_replacement(value: Any) -> bool:
    """Returns whether a value is a method that tfmeta gave a layer for its episodes."""
    return isinstance(value, types.FunctionType) and value.__module__.startswith("tfmeta.networks.")


@functools.cache
def _function_attributes() -> frozenset[str]:
    """Returns the names of the attributes in which a functional model keeps its graph."""
    x = keras.Input((1,), name="x")
    identity = keras.Function(x, x, name="identity")
    return frozenset(vars(identity).keys() - vars(keras.Operation(name="operation")).keys())


def connect_function(copy: Any, function: Any, copy_of: Callable[[Any], Any]) -> None:
    """Makes the graph of a copied functional model by calling the copies of its layers.

    Rests on `Function._run_through_graph`, as `keras.models.clone_model` does.

    Args:
        copy: keras.Function. The copy, still without a graph.
        function: keras.Function. The original.
        copy_of: function. Returns the copy of a layer.
    """
    inputs = keras.tree.map_structure(
        lambda x: copy_of(x._keras_history.operation).output, function._inputs_struct
    )
    outputs = function._run_through_graph(inputs, operation_fn=copy_of)
    graph = keras.Function(inputs, outputs, name=function.name)
    vars(copy).update({name: vars(graph)[name] for name in _function_attributes()})


def copy_variable(variable: keras.Variable) -> keras.Variable:
    """Makes a variable with the same value and options."""
    copy = keras.Variable(
        tf.convert_to_tensor(variable.value),
        dtype=variable.dtype,
        trainable=variable.trainable,
        autocast=variable._autocast,
        aggregation=variable.aggregation,
        synchronization=variable.synchronization,
        name=variable.name,
    )
    for name in ("_path", "_regularizer", "_constraint", "_overwrite_with_gradient"):
        setattr(copy, name, getattr(variable, name))
    return copy


def renew_ids(copy: Any) -> None:
    """Makes a copied tracker of a layer's variables and layers know those of the copy.

    Rests on `Tracker.config`, where each list comes after its condition, and on `stored_ids`.
    """
    if type(copy).__name__ == "Tracker":
        copy.stored_ids = {
            name: {id(value) for value in stored} for name, (_, stored) in copy.config.items()
        }


def with_python_function(function: Any, python_function: Callable[..., Any]) -> Any:
    """Makes a `tf.function` with the same options of another Python function.

    Rests on `Function._clone`, which `tf.function` uses for methods.
    """
    return function._clone(python_function)


# === Recurrence ===


def replace_recurrence(layer: keras.layers.RNN, make: Callable[[Any], Callable[..., Any]]) -> None:
    """Replaces a layer's loop over time. Further replacements have no effect.

    Rests on Keras looking `inner_loop` up on the instance each time.

    Args:
        layer: keras.layers.RNN. The layer.
        make: function. Makes the new method, of sequences, states, mask and mode, from the layer.
    """
    vars(layer).setdefault("inner_loop", make(layer))


def own_recurrence(layer: keras.layers.RNN, *args: Any) -> Any:
    """Runs a layer's original loop over time, on a GPU that of cuDNN."""
    return type(layer).inner_loop(layer, *args)


def plain_recurrence(
    layer: keras.layers.RNN, sequences: Any, state: Any, mask: Any, *args: Any
) -> Any:
    """Runs the loop over time of `keras.layers.RNN`, which calls the layer's cell at each step."""
    mask = mask[0] if keras.tree.is_nested(mask) else mask
    return keras.layers.RNN.inner_loop(layer, sequences, state, mask, *args)


class _Unrolled:
    """A recurrent layer, but for its being unrolled."""

    unroll = True

    def __init__(self, layer: keras.layers.RNN) -> None:
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def unrolled_recurrence(layer: keras.layers.RNN, *args: Any) -> Any:
    """Runs the plain loop over time of a static number of steps, without a loop in the graph.

    Rests on that loop reading the layer's attributes, `unroll` among them.
    """
    return plain_recurrence(_Unrolled(layer), *args)


# === Weights and masks ===


def is_recomputed(layer: keras.layers.Layer) -> bool:
    """Returns whether a layer is computed again for its gradient, after its call has ended.

    Rests on the attribute in which Keras keeps the mode of a `keras.RematScope`.
    """
    return getattr(getattr(layer, "_remat_mode", None), "mode", None) is not None


def overwrites_weights(layer: keras.layers.Layer) -> bool:
    """Returns whether optimizers overwrite some of a layer's own weights by their gradients.

    Rests on the attribute by which Keras marks the scales of float8 layers.
    """
    return any(v.overwrite_with_gradient for v in layer._trainable_variables)


def with_mask_of_rows(x: tf.Tensor, of: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Gives `x`, which consists of rows of another tensor, these rows of that one's Keras mask.

    Rests on the attribute `_keras_mask`, in which Keras hands masks from layer to layer.
    """
    mask = getattr(of, "_keras_mask", None)
    if mask is not None:
        x._keras_mask = tf.gather(mask, rows)
    return x
