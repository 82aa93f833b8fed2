"""The signatures of a servable: functions of named tensors, each traced once.

Everything here runs inside the exported graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmeta.data.images import ImageFormat
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.serving.encoded_images import image_decoders, on_encoded_images
from tfmeta.serving.errors import as_servable_error
from tfmeta.serving.outputs import named_outputs
from tfmeta.serving.requests import (
    Tensors,
    checked_examples,
    checked_support,
    finite,
    name_in_request,
    with_checked_shapes,
    with_equal_sizes,
    with_equal_task_counts,
)
from tfmeta.serving.task_functions import TaskFunctions, trace_task_functions
from tfmeta.task_mapping import How, map_tasks

# A task's state with more numbers than this is too large to be sent with each request.
MOST_STATE = 2**14


class Signature(NamedTuple):
    """A traced function from a dictionary of tensors to another one, with its inputs.

    The same function answers in memory and is written into the servable.
    """

    function: Any
    inputs: dict[str, tf.TensorSpec]

    def answer(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the answer of the model in memory to a request.

        Raises:
            ServableError: If the signature, which is called `name`, fails.
        """
        with as_servable_error(f"The signature {name!r} fails on a warmup request"):
            outputs = self.function({key: tf.constant(inputs[key]) for key in self.inputs})
        return {key: value.numpy() for key, value in outputs.items()}


class _Body(NamedTuple):
    """A signature before it is traced: a Python function with its inputs."""

    function: Callable[[Tensors], dict[str, tf.Tensor]]
    inputs: dict[str, tf.TensorSpec]


def adapted_signatures(
    model: keras.Model,
    example_shape: Sequence[int],
    dtype: str,
    output_kind: str,
    class_names: Sequence[str] | None,
    image_format: ImageFormat | None,
) -> dict[str, Signature]:
    """Returns the signatures of an adapted model by name, the default one first.

    Args:
        model: keras.Model. From examples `[N, *x]` to predictions.
        example_shape: sequence of int. The shape of one example.
        dtype: str. The dtype of examples.
        output_kind: str. What the model returns, a key of `OUTPUTS`.
        class_names: sequence of str or None. The names of the classes 0, 1, …
        image_format: ImageFormat or None. How images become examples; None for no signature that
            takes images.
    """
    x = tf.TensorSpec([None, *example_shape], dtype, "x")

    def call_model(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(x, training=False), model.variable_dtype)

    traced_model = tf.function(call_model, input_signature=[x], autograph=False)

    def predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        predictions = traced_model(checked_examples(inputs))
        return named_outputs(predictions, output_kind, name_in_request(inputs, "x"), class_names)

    bodies = {"serving_default": _Body(predict, {"x": x})}
    if image_format is not None:
        decoders = image_decoders(image_format)
        bodies["predict_images"] = _Body(*on_encoded_images(predict, {"x": x}, decoders))
    return _traced(bodies)


def learner_signatures(
    learner: MetaLearner,
    example_shape: Sequence[int],
    target_shape: Sequence[int],
    n_outputs: int | None,
    image_format: ImageFormat | None,
) -> dict[str, Signature]:
    """Returns the signatures of a learner by name, the default one first.

    Args:
        learner: MetaLearner. A built learner.
        example_shape: sequence of int. The shape of one example.
        target_shape: sequence of int. The shape of one target in regression; () for labels.
        n_outputs: int or None. The number of classes, if the network fixes it.
        image_format: ImageFormat or None. How images become examples; None for no signatures that
            take images.

    Raises:
        ServableError: If the learner fails on a small support set.
    """
    dtype = learner.variable_dtype
    is_regression = learner.output_kind == "values"

    def spec(name: str, shape: Sequence[int | None], dtype: str = dtype) -> tf.TensorSpec:
        return tf.TensorSpec([None, *shape], dtype, name)

    support_specs = {
        "support_x": spec("support_x", [None, *example_shape]),
        "support_y": spec("support_y", [None, *target_shape], dtype if is_regression else "int64"),
        "support_mask": spec("support_mask", [None]),
    }
    query_spec = spec("query_x", [None, *example_shape])
    task = trace_task_functions(learner, support_specs, query_spec, n_outputs)
    bodies = _learner_bodies(learner, task, support_specs, query_spec, n_outputs)
    if image_format is not None:
        decoders = image_decoders(image_format)
        bodies |= {
            f"{name}_images": _Body(*on_encoded_images(*body, decoders))
            for name, body in bodies.items()
        }
    return _traced(bodies)


def _learner_bodies(
    learner: MetaLearner,
    task: TaskFunctions,
    support_specs: dict[str, tf.TensorSpec],
    query_spec: tf.TensorSpec,
    n_outputs: int | None,
) -> dict[str, _Body]:
    state_specs = {
        name: tf.TensorSpec([None, *spec.shape], spec.dtype, name)
        for name, spec in task.state.specs.items()
    }

    def checked(inputs: Tensors) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
        return checked_support(inputs, learner.output_kind == "values", n_outputs)

    def queries_of(inputs: Tensors) -> tf.Tensor:
        name = name_in_request(inputs, "query_x")
        return finite(name, inputs[name])

    def over_tasks(function: Callable[[Any], Any], elements: Any, outputs: Any) -> Any:
        # In a loop: the machine that will serve is not known, and a request has few tasks.
        return map_tasks(function, elements, outputs, How())

    prediction_dtype = tf.as_dtype(learner.variable_dtype)

    def adapt_and_predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        support, n_way = checked(inputs)
        predictions = over_tasks(
            lambda elements: task.predict(task.adapt(elements[0], n_way), elements[1]),
            (support, queries_of(inputs)),
            prediction_dtype,
        )
        return named_outputs(predictions, learner.output_kind, ", ".join(inputs))

    def adapt(inputs: Tensors) -> dict[str, tf.Tensor]:
        support, n_way = checked(inputs)
        tensors = over_tasks(
            lambda task_support: task.adapt(task_support, n_way),
            support,
            list(task.state.specs.values()),
        )
        source = f"learned from {name_in_request(inputs, 'support_x')} and support_y"
        return {
            name: finite(f"{name}, {source},", tensor)
            for name, tensor in zip(state_specs, tensors, strict=True)
        }

    def predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        inputs = with_equal_sizes(with_equal_task_counts(inputs), task.state.equal_sizes)
        predictions = over_tasks(
            lambda elements: task.predict(elements[0], elements[1]),
            ([finite(name, inputs[name]) for name in state_specs], queries_of(inputs)),
            prediction_dtype,
        )
        query_name = name_in_request(inputs, "query_x")
        return named_outputs(predictions, learner.output_kind, f"the state and {query_name}")

    query = {"query_x": query_spec}
    bodies = {"adapt_and_predict": _Body(adapt_and_predict, {**support_specs, **query})}
    if task.state.count_numbers() <= MOST_STATE:
        bodies["adapt"] = _Body(adapt, support_specs)
        bodies["predict"] = _Body(predict, {**state_specs, **query})
    return bodies


def _traced(bodies: Mapping[str, _Body]) -> dict[str, Signature]:
    signatures = {}
    for name, (body, specs) in bodies.items():
        function = tf.function(
            with_checked_shapes(body, specs), input_signature=[dict(specs)], autograph=False
        )
        signatures[name] = Signature(function.get_concrete_function(), specs)
    return signatures
