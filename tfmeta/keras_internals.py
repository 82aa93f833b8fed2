"""The private or fragile interfaces of Keras that tfmeta uses.

Those for copies of layers are in `keras_layers`, those of TensorFlow in `tensorflow_internals`.
Each function says what it rests on, and tests/test_keras_internals.py fails loudly when an upgrade
changes that.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

# === Layers ===


def layers_of(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields a model and all layers in it, nested ones included.

    Rests on `Layer._flatten_layers`, for which Keras has no public name.
    """
    return model._flatten_layers()


def replace_call(layer: keras.layers.Layer, make: Callable[[Any], Callable[..., Any]]) -> None:
    """Replaces a layer's `call`. Further replacements have no effect.

    Rests on Keras looking `call` up on the instance each time, and on entries in the instance's
    dictionary that Keras does not track.

    Args:
        layer: keras.layers.Layer. The layer.
        make: function. Makes the new method from the layer.
    """
    vars(layer).setdefault("call", make(layer))


def replace_convolution(
    layer: keras.layers.Conv2D, make: Callable[[Any], Callable[..., Any]]
) -> None:
    """Replaces a layer's convolution. Further replacements have no effect.

    Rests, as `replace_call`, on Keras looking `convolution_op` up on the instance each time.

    Args:
        layer: keras.layers.Conv2D. The layer.
        make: function. Makes the new method, of inputs and kernel, from the layer.
    """
    vars(layer).setdefault("convolution_op", make(layer))


def own_convolution(layer: keras.layers.Conv2D, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
    """Computes a layer's original convolution, even if it was replaced."""
    return type(layer).convolution_op(layer, inputs, kernel)


def is_stock_batch_norm(layer: keras.layers.Layer) -> bool:
    """Returns whether Keras's own batch normalisation computes this layer's output."""
    return type(layer).call is keras.layers.BatchNormalization.call


def is_stock_conv2d(layer: keras.layers.Layer) -> bool:
    """Returns whether Keras's own 2-D convolution computes this layer's product.

    Rests on `Conv2D.convolution_op`, a public method that users may override.
    """
    conv2d = keras.layers.Conv2D
    return isinstance(layer, conv2d) and type(layer).convolution_op is conv2d.convolution_op


def uses_batch_renorm(layer: keras.layers.BatchNormalization) -> bool:
    """Returns whether a layer uses batch renormalisation, an option of some Keras versions."""
    return bool(getattr(layer, "renorm", False))


# === Models ===


class NoSaveSignature:
    """Keeps Keras from assuming, when it saves or exports a model, that the input is an array.

    Rests on the name `Model._default_save_signature`: under another name, saving traces again.
    """

    @property
    def _default_save_signature(self) -> None:
        return None


def loss_tracker(model: keras.Model) -> Any:
    """Returns the metric in which Keras keeps a model's mean loss, or None before `compile`.

    Rests on `Trainer._loss_tracker`. The user may also have a metric called "loss".
    """
    return getattr(model, "_loss_tracker", None)


def clear_losses(model: keras.Model) -> None:
    """Forgets what layers added to the loss in earlier calls.

    Rests on `Layer._clear_losses`, which Keras calls whenever a model is called as a whole.
    """
    model._clear_losses()


def additional_loss(model: keras.Model, loss: tf.Tensor) -> tf.Tensor:
    """Returns what Keras adds to a model's loss for a loss of a layer.

    Rests on `Trainer._aggregate_additional_loss`, which divides it among replicas.
    """
    return model._aggregate_additional_loss(loss)


def steps_taken(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns the number of steps that an optimizer did not skip; `iterations` may count fewer.

    Rests on `Optimizer._iterations`, and on `inner_optimizer` of loss scaling.
    """
    return int(getattr(optimizer, "inner_optimizer", optimizer)._iterations)


def swap_averages(optimizer: keras.optimizers.Optimizer) -> bool:
    """Exchanges weights and their moving averages; returns whether the optimizer has averages.

    Keras's own callback rounds. Rests on `Optimizer._model_variables_moving_average`.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not optimizer.use_ema or not optimizer.built or steps_taken(optimizer) == 0:
        return False
    averages = optimizer._model_variables_moving_average
    for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
        if average is not None:
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(average)
            average.assign(value)
    return True


def keep_in_pickles(model: keras.Model, *names: str) -> None:
    """Makes pickles of a model keep these attributes, which Keras's own drop.

    The pickle needs no more than Keras to load. Rests on `pickle` looking `__reduce_ex__` up on the
    instance, on Keras's `__reduce__` returning a function and its arguments, and on entries in the
    instance's dictionary that Keras does not track.
    """

    def reduce(protocol: int) -> tuple[Any, ...]:
        function, arguments = model.__reduce__()
        values = {name: getattr(model, name) for name in names}
        # Keras wraps lists, and the wrapper does not pickle.
        values = {name: list(v) if isinstance(v, list) else v for name, v in values.items()}
        return function, arguments, values

    vars(model)["__reduce_ex__"] = reduce


def optimizer_knows(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> bool:
    """Returns whether a built optimizer was built for all these variables.

    Rests on `Optimizer._trainable_variables`, and on a `LossScaleOptimizer`'s `inner_optimizer`.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    known = {id(v) for v in inner._trainable_variables}
    return all(id(v) in known for v in variables)


def assigned_by_layers(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables that layers assign in training: seeds, moving averages and their like.

    They are the non-trainable variables, without the weights of frozen layers. Rests on
    `Layer._trainable_variables`, which holds the weights of a frozen layer, too.
    """
    frozen = {id(v) for layer in layers_of(model) for v in layer._trainable_variables}
    return [v for v in model.non_trainable_variables if id(v) not in frozen]


# === Seeds ===


def is_seed_state(variable: keras.Variable) -> bool:
    """Returns whether a variable is the state of a `keras.random.SeedGenerator`.

    Rests on its name and on its layout, `[seed, counter]`.
    """
    return variable.name == "seed_generator_state"


def set_seed_state(variable: keras.Variable, seed: int, counter: int) -> None:
    """Sets the state of a `keras.random.SeedGenerator`."""
    variable.assign([seed, counter])


def seed_state(variable: keras.Variable, seed: tf.Tensor, number: int) -> tf.Tensor:
    """Returns the state of one of several `keras.random.SeedGenerator`s, for a seed of all.

    Rests on each draw adding 1 to the state's counter, which has 64 bits.

    Args:
        variable: keras.Variable. The generator's state.
        seed: tf.Tensor `[2]`, int32. The seed.
        number: int. The generator's number, below 2 ** 31.
    """
    return tf.cast(seed, variable.dtype) + tf.constant([0, number << 32], variable.dtype)


def shifted_seed(variable: keras.Variable, offset: tf.Tensor) -> tf.Tensor:
    """Returns the shift `[offset, 0]` to add to a seed generator's state for another seed."""
    return tf.cast(tf.stack([offset, tf.zeros_like(offset)]), variable.dtype)


# === Keras 2 ===


@contextlib.contextmanager
def with_tensors_of_keras_2() -> Iterator[None]:
    """Has Keras 3's `KerasTensor` meanwhile where packages for Keras 2 import it from."""
    tensors = types.ModuleType("keras.src.engine.keras_tensor")
    tensors.__dict__["KerasTensor"] = keras.KerasTensor
    engine = types.ModuleType("keras.src.engine")
    engine.__dict__["keras_tensor"] = tensors
    modules = {module.__name__: module for module in (engine, tensors)}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
