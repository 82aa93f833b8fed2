"""The private or fragile interfaces of TensorFlow that tfmeta uses; see `keras_internals`."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

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


# Operations, all of them gradients, whose derivative TensorFlow takes for zero, which it is not.
WITHOUT_DERIVATIVE = (
    "ResizeBilinearGrad",
    "FakeQuantWithMinMaxArgsGradient",
    "FakeQuantWithMinMaxVarsGradient",
    "FakeQuantWithMinMaxVarsPerChannelGradient",
    "SparseAddGrad",
)
_refuses = contextvars.ContextVar("_refuses", default=False)


@contextlib.contextmanager
def refusing_wrong_derivatives() -> Iterator[None]:
    """Makes gradients through `WITHOUT_DERIVATIVE` raise TensorFlow's error of a missing one.

    Rests on TensorFlow's registry of gradients, which has no public way to replace one. Outside of
    the block, and in other threads, they are zero as before.

    Raises:
        LookupError: In the block, if such a gradient is taken.
    """
    from tensorflow.python.framework import ops

    registry = ops.gradient_registry._registry
    for name in WITHOUT_DERIVATIVE:
        if name in registry and registry[name]["type"] is None:
            registry[name] = {**registry[name], "type": functools.partial(_zero_or_refused, name)}
    token = _refuses.set(True)
    try:
        yield
    finally:
        _refuses.reset(token)


def _zero_or_refused(name: str, *_: Any) -> list[None]:
    from tensorflow.python.framework import op_def_registry

    if _refuses.get():
        raise LookupError(f"gradient registry has no entry for: {name}")
    return [None for _ in op_def_registry.get(name).input_arg]


# === Data sets ===


def explaining(
    dataset: tf.data.Dataset, explain: Callable[[tf.errors.OpError], None]
) -> tf.data.Dataset:
    """Returns the data set; an error in a loop over it is given to a function first.

    Keras's `fit` takes the iterator into a graph, where the function is not called. Rests on
    `UnaryUnchangedStructureDataset` and `OwnedIterator`, the classes of data sets and iterators.

    Args:
        dataset: tf.data.Dataset. The data set.
        explain: function. Raises an error that says more, or does nothing.
    """
    from tensorflow.python.data.ops import dataset_ops, iterator_ops

    class Iterator(iterator_ops.OwnedIterator):
        def __next__(self) -> Any:
            try:
                return super().__next__()
            except tf.errors.OpError as error:
                explain(error)
                raise

    class Dataset(dataset_ops.UnaryUnchangedStructureDataset):
        def __iter__(self) -> Any:
            return Iterator(self) if tf.executing_eagerly() else super().__iter__()

    return Dataset(dataset, dataset._variant_tensor)


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
