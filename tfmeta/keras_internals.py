"""All private or fragile interfaces of Keras and TensorFlow that tfmeta uses.

Each function says what it rests on, and tests/test_keras_internals.py fails loudly when an upgrade
changes that.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
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


# === Seeds ===


def is_seed_state(variable: keras.Variable) -> bool:
    """Returns whether a variable is the state of a `keras.random.SeedGenerator`.

    Rests on its name and on its layout, `[seed, counter]`.
    """
    return variable.name == "seed_generator_state"


def set_seed_state(variable: keras.Variable, seed: int, counter: int) -> None:
    """Sets the state of a `keras.random.SeedGenerator`."""
    variable.assign([seed, counter])


def shifted_seed(variable: keras.Variable, offset: tf.Tensor) -> tf.Tensor:
    """Returns the shift `[offset, 0]` to add to a seed generator's state for another seed."""
    return tf.cast(tf.stack([offset, tf.zeros_like(offset)]), variable.dtype)


# === Functions of TensorFlow ===

_ORIGINALS: dict[str, Callable[..., Any]] = {}


def install(name: str, function: Callable[..., Any]) -> None:
    """Makes Keras's layers compute by another function than TensorFlow's. It is installed once.

    Keras looks `tf.nn.moments` and its like up in TensorFlow's public modules at each call, and
    offers no other way to replace them. Outside of tfmeta's episodes the new function must call
    the `original`.

    Args:
        name: str. The function's place in TensorFlow, such as `"nn.moments"`.
        function: function. It has the parameters of TensorFlow's.
    """
    module, _, attribute = name.rpartition(".")
    if name not in _ORIGINALS:
        _ORIGINALS[name] = getattr(getattr(tf, module), attribute)
        setattr(
            getattr(tf, module), attribute, functools.wraps(_ORIGINALS[name], updated=())(function)
        )


def original(name: str) -> Callable[..., Any]:
    """Returns TensorFlow's own function, whether it was replaced or not."""
    module, _, attribute = name.rpartition(".")
    return _ORIGINALS.get(name) or getattr(getattr(tf, module), attribute)


# === Graphs ===


def current_graph() -> tf.Graph | None:
    """Returns the graph in which operations are created now; None if they run at once."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def in_control_flow_of(graph: tf.Graph | None) -> bool:
    """Returns whether operations are created in a graph, or in loops and branches of it.

    The function in which Keras compiles a grouped convolution counts as well: it is made anew for
    each call. Rests on its name, and on TensorFlow's classes of graphs for loops and branches.
    """
    from tensorflow.python.ops import control_flow_v2_func_graphs as bodies

    now: Any = current_graph()
    control_flow = (
        bodies.CondBranchFuncGraph,
        bodies.WhileBodyFuncGraph,
        bodies.WhileCondFuncGraph,
    )
    while now is not graph and (
        isinstance(now, control_flow) or getattr(now, "name", None) == "_conv_xla"
    ):
        now = None if graph is None else now.outer_graph
    return now is graph


# === Operations ===


def fused_batch_norm(x: tf.Tensor, offset: tf.Tensor, epsilon: float) -> Any:
    """Normalises float32 images by their own statistics with TensorFlow's fused kernel.

    Rests on `FusedBatchNormV3` and on its `batch_variance` being the unbiased one.

    Args:
        x: tf.Tensor `[N, height, width, channels]`, float32.
        offset: tf.Tensor `[channels]`. The mean to give.
        epsilon: float. Added to the variance.

    Returns:
        The operation's outputs: `y`, `batch_variance` and what its gradient needs.
    """
    none = tf.zeros([0])
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.ones([x.shape[-1]]),
        offset=offset,
        mean=none,
        variance=none,
        epsilon=epsilon,
        is_training=True,
    )


def fused_batch_norm_gradient(
    g: tf.Tensor, x: tf.Tensor, saved: Any, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the gradients of `fused_batch_norm` by its input, offset and scale.

    Args:
        g: tf.Tensor. The gradient by the output.
        x: tf.Tensor. The input.
        saved: What `fused_batch_norm` returned.
        epsilon: float. Added to the variance.
    """
    gradients = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=g,
        x=x,
        scale=tf.ones([x.shape[-1]]),
        reserve_space_1=saved.reserve_space_1,
        reserve_space_2=saved.reserve_space_2,
        reserve_space_3=saved.reserve_space_3,
        epsilon=epsilon,
        is_training=True,
    )
    return gradients.x_backprop, gradients.offset_backprop, gradients.scale_backprop


def without_gradient(x: tf.Tensor, message: str) -> tf.Tensor:
    """Returns `x`; differentiating it raises an error with this message."""
    return tf.raw_ops.PreventGradient(input=x, message=message)


def with_unknown_shape(x: tf.Tensor, name: str) -> tf.Tensor:
    """Returns `x` with an unknown static shape, so that its shape can be checked.

    Rests on `PlaceholderWithDefault` keeping the shape that it is given.
    """
    return tf.raw_ops.PlaceholderWithDefault(input=x, shape=None, name=name)


def vectorize_bad_indices() -> None:
    """Lets `tf.vectorized_map` and `tape.jacobian` pass through `tf.gather_nd` of bad indices.

    TensorFlow's converter of the operation drops `bad_indices_policy`, so that an index that
    should give zeros raises an error. Rests on pfor's registry of converters; operations without a
    policy go to TensorFlow's own.
    """
    from tensorflow.python.ops.parallel_for import pfor

    registry = pfor._pfor_converter_registry
    own = registry["GatherNd"]
    if getattr(own, "keeps_policy", False):
        return

    def convert(node: Any) -> Any:
        policy = node.get_attr("bad_indices_policy")
        if not policy:
            return own(node)
        node.stack_inputs(stack_indices=[0, 1])
        params, indices = node.stacked_input(0), node.stacked_input(1)
        iterations = tf.range(tf.shape(indices)[0], dtype=indices.dtype)
        iterations = tf.reshape(iterations, [-1] + [1] * (indices.shape.rank - 1))
        iterations = tf.broadcast_to(iterations, tf.shape(indices[..., :1]))
        indices = tf.concat([iterations, indices], axis=-1)
        found = tf.gather_nd(params, indices, bad_indices_policy=tf.compat.as_str(policy))
        return pfor.wrap(found, True)

    convert.keeps_policy = True  # type: ignore[attr-defined]
    registry["GatherNd"] = convert


# === SavedModels ===

SAVED_MODEL_INIT = "__saved_model_init_op"


def meta_graphs(content: bytes) -> list[Any]:
    """Parses the content of a `saved_model.pb`.

    Rests on the protocol buffers that TensorFlow ships as `tensorflow.core.protobuf`.

    Raises:
        ValueError: If it is no SavedModel.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return list(saved_model_pb2.SavedModel.FromString(content).meta_graphs)
    except DecodeError as error:
        raise ValueError(f"no SavedModel: {error}") from error


def needs_xla(node: Any) -> bool:
    """Returns whether a node of a graph needs XLA, which a server has switched off.

    Rests on the attribute `_XlaMustCompile`.
    """
    return "_XlaMustCompile" in node.attr and bool(node.attr["_XlaMustCompile"].b)


def cause_of(error: tf.errors.OpError) -> str:
    """Returns the cause of an error in a graph, a sentence of TensorFlow's message.

    Rests on the wording: the line before the node's name is the message of the operation.
    """
    lines = error.message.splitlines() or [type(error).__name__]
    ends = (i for i, line in enumerate(lines) if line.startswith("\t [[") and i)
    return re.sub(r"^{{.*?}} | \[Op:.*", "", lines[next(ends, 1) - 1])
