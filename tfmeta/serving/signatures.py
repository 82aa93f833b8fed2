"""What a servable computes: signatures, pure functions of named tensors, and their checks.

Everything here runs inside of the exported graph. A bad request fails with an INVALID_ARGUMENT
error that names the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfmeta.data.images import ImageFormat
from tfmeta.learners.meta_learner import MetaLearner

Tensors = Mapping[str, tf.Tensor]

# A task's state of up to so many numbers is worth sending with each request.
MOST_STATE = 2**14
# Pixels of an encoded image: a few bytes may claim to be gigabytes.
MOST_PIXELS = 2**24

# How files of images begin.
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class Signature(NamedTuple):
    """A function of a servable, and what it takes."""

    function: Callable[[Tensors], dict[str, tf.Tensor]]
    inputs: dict[str, tf.TensorSpec]


# === An adapted model ===


def of_adapted(
    model: keras.Model,
    example_shape: Sequence[int],
    output_kind: str,
    class_names: Sequence[str] | None,
    image_format: ImageFormat | None,
) -> dict[str, Signature]:
    """The signatures of a task that has been learned, by name; the default one first."""

    def predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        (x,) = _checked([("there must be at least one x", _is_some(inputs["x"]))], inputs["x"])
        return _named(model(_finite("x", x), training=False), output_kind, class_names)

    x = tf.TensorSpec([None, *example_shape], model.variable_dtype, "x")
    signatures = {"serving_default": Signature(predict, {"x": x})}
    if image_format is not None:
        signatures["predict_images"] = _on_images(signatures["serving_default"], image_format)
    return signatures


# === A learner ===


def of_learner(
    learner: MetaLearner,
    example_shape: Sequence[int],
    target_shape: Sequence[int],
    n_outputs: int | None,
    image_format: ImageFormat | None,
) -> dict[str, Signature]:
    """The signatures of a learner, by name; the default one first.

    Args:
        learner: A built learner.
        example_shape: That of x.
        target_shape: That of y, in regression; () for labels.
        n_outputs: The number of classes, where the network fixes it.
        image_format: How encoded images become x; None if they do not.
    """
    is_regression = learner.output_kind == "values"

    def support_of(inputs: Tensors) -> tuple[Tensors, tf.Tensor | None]:
        return _checked_support(inputs, is_regression, n_outputs)

    def adapt_and_predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        support, n_way = support_of(inputs)
        queries = _finite("query_x", inputs["query_x"])
        with learner.for_n_way(n_way):
            predictions = learner({**support, "query_x": queries}, training=False)
        return _named(predictions, learner.output_kind)

    dtype = learner.variable_dtype
    spec = _spec_of_tasks
    support = {
        "support_x": spec("support_x", [None, *example_shape], dtype),
        "support_y": spec("support_y", [None, *target_shape], dtype if is_regression else "int64"),
        "support_mask": spec("support_mask", [None], dtype),
    }
    query = {"query_x": spec("query_x", [None, *example_shape], dtype)}
    signatures = {"adapt_and_predict": Signature(adapt_and_predict, {**support, **query})}
    state = _state_of_one(learner, support)
    if sum(math.prod(n or 1 for n in leaf.shape) for _, leaf in state) <= MOST_STATE:
        signatures |= _in_two_steps(learner, state, support, query, support_of)
    if image_format is not None:
        signatures |= {
            f"{name}_images": _on_images(signature, image_format)
            for name, signature in signatures.items()
        }
    return signatures


def _in_two_steps(
    learner: MetaLearner,
    state: list[tuple[str, tf.TensorSpec]],
    support: dict[str, tf.TensorSpec],
    query: dict[str, tf.TensorSpec],
    support_of: Callable[[Tensors], tuple[Tensors, tf.Tensor | None]],
) -> dict[str, Signature]:
    """The signatures `adapt`, to a state, and `predict`, from it."""
    names = [name for name, _ in state]

    def adapt(inputs: Tensors) -> dict[str, tf.Tensor]:
        checked, n_way = support_of(inputs)
        with learner.for_n_way(n_way):
            leaves = tf.map_fn(
                lambda x: keras.tree.flatten(
                    learner.adapt_task(x["support_x"], x["support_y"], x["support_mask"])
                ),
                checked,
                fn_output_signature=[leaf for _, leaf in state],
            )
        return {name: _finite(name, x) for name, x in zip(names, leaves, strict=True)}

    def predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        checked = _same_tasks(inputs)
        leaves = [_finite(name, checked[name]) for name in names]
        queries = _finite("query_x", checked["query_x"])

        def one(elements: tuple[list[tf.Tensor], tf.Tensor]) -> tf.Tensor:
            task = keras.tree.pack_sequence_as(_structure(learner, support), elements[0])
            return tf.cast(learner.predict_task(task, elements[1]), learner.variable_dtype)

        predictions = tf.map_fn(
            one, (leaves, queries), fn_output_signature=tf.as_dtype(learner.variable_dtype)
        )
        return _named(predictions, learner.output_kind)

    specs = {
        name: tf.TensorSpec([None, *leaf.shape], leaf.dtype, name=name) for name, leaf in state
    }
    return {"adapt": Signature(adapt, support), "predict": Signature(predict, {**specs, **query})}


def _structure(learner: MetaLearner, support: dict[str, tf.TensorSpec]) -> Any:
    """What `adapt_task` returns, as specifications."""
    one = [tf.TensorSpec(spec.shape[1:], spec.dtype) for spec in support.values()]
    outputs = tf.function(learner.adapt_task, autograph=False).get_concrete_function(*one)
    return tf.nest.map_structure(
        lambda x: tf.TensorSpec(x.shape, x.dtype), outputs.structured_outputs
    )


def _state_of_one(
    learner: MetaLearner, support: dict[str, tf.TensorSpec]
) -> list[tuple[str, tf.TensorSpec]]:
    """Names and specifications of the tensors that a task's state consists of."""
    paths = keras.tree.flatten_with_path(_structure(learner, support))
    return [("_".join(["state", *map(str, path)]), spec) for path, spec in paths]


# === Encoded images ===


def _on_images(signature: Signature, image_format: ImageFormat) -> Signature:
    """The same on PNG or JPEG files in place of arrays."""
    names = {"x": "images", "support_x": "support_images", "query_x": "query_images"}
    renamed = {name: names[name] for name in signature.inputs if name in names}

    def function(inputs: Tensors) -> dict[str, tf.Tensor]:
        arrays = {name: x for name, x in inputs.items() if name not in renamed.values()}
        for name, images in renamed.items():
            mask = inputs["support_mask"] if name == "support_x" else None
            arrays[name] = tf.cast(
                _decoded(images, inputs[images], mask, image_format), signature.inputs[name].dtype
            )
        return signature.function(arrays)

    specs = {}
    for name, spec in signature.inputs.items():
        if name in renamed:
            spec = tf.TensorSpec(spec.shape[:-3], tf.string, renamed[name])
        specs[renamed.get(name, name)] = spec
    return Signature(function, specs)


def _decoded(
    name: str, encoded: tf.Tensor, mask: tf.Tensor | None, image_format: ImageFormat
) -> tf.Tensor:
    """`[…, height, width, channels]`, from 0 to 1 as in training; zeros where the mask is."""
    exists = tf.ones(tf.shape(encoded), tf.bool) if mask is None else mask > 0
    if mask is not None:
        same = tf.reduce_all(tf.equal(tf.shape(encoded), tf.shape(mask)))
        encoded, exists = _checked(
            [(f"{name} and support_mask must have the same shape", same)], encoded, exists
        )
    is_png = tf.strings.substr(encoded, 0, len(PNG)) == PNG
    is_jpeg = tf.strings.substr(encoded, 0, len(JPEG)) == JPEG
    (encoded,) = _checked(
        [(f"{name} must be PNG or JPEG files", tf.reduce_all(is_png | is_jpeg | ~exists))], encoded
    )

    def decode(elements: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        with tf.name_scope(f"{name}_must_be_whole_PNG_or_JPEG_files"):
            return tf.cond(
                elements[1],
                lambda: image_format.from_bytes(elements[0]),
                lambda: tf.zeros(image_format.shape, tf.uint8),
            )

    pixels = tf.map_fn(
        decode,
        (tf.reshape(encoded, [-1]), tf.reshape(exists, [-1])),
        fn_output_signature=tf.TensorSpec(image_format.shape, tf.uint8),
    )
    shape = tf.concat([tf.shape(encoded), image_format.shape], axis=0)
    return tf.reshape(tf.cast(pixels, tf.float32) / 255, shape)


# === Outputs ===


def _named(
    predictions: tf.Tensor, output_kind: str, class_names: Sequence[str] | None = None
) -> dict[str, tf.Tensor]:
    """The outputs of a prediction `[…, n_way]` or `[…, *y]`."""
    if class_names is not None:
        predictions = predictions[..., : len(class_names)]
    predictions = _finite("the predictions for these inputs", predictions)
    if output_kind == "values":
        return {"predictions": predictions}
    if output_kind == "scores":
        outputs = {"scores": predictions}
    else:
        outputs = {"logits": predictions, "probabilities": tf.nn.softmax(predictions)}
    if class_names is not None:
        outputs["classes"] = tf.repeat([list(class_names)], tf.shape(predictions)[0], axis=0)
    return outputs


# === Checks ===


def _checked_support(
    inputs: Tensors, is_regression: bool, n_outputs: int | None
) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
    """The support sets, whatever was in their padding; and the number of classes."""
    inputs = _same_tasks(inputs)
    x, y, mask = (inputs[name] for name in ("support_x", "support_y", "support_mask"))
    sizes = [tf.shape(tensor)[1] for tensor in (x, y, mask)]
    alike = tf.reduce_all(tf.equal(sizes, sizes[0]))
    message = "support_x, support_y and support_mask must have the same number of examples"
    x, y, mask = _checked([(message, alike)], _finite("support_x", x), y, mask)
    exists = mask > 0
    x, y, mask = _checked(
        [
            ("support_mask must be 0 or 1", tf.reduce_all((mask == 0) | (mask == 1))),
            (
                "support_x must hold at least one example for each task, with support_mask 1",
                tf.reduce_all(tf.reduce_any(exists, axis=1)),
            ),
        ],
        x,
        y,
        mask,
    )
    if is_regression:
        y = _finite("support_y", y)
        return {"support_x": x, "support_y": y, "support_mask": mask}, None
    y = tf.where(exists, y, 0)
    limit = sizes[0] if n_outputs is None else tf.minimum(sizes[0], n_outputs)
    in_range = tf.reduce_all((y >= 0) & (y < tf.cast(limit, y.dtype)))
    top = "" if n_outputs is None else f", and the network tells {n_outputs} classes apart"
    message = (
        "support_y must be labels from 0 to n_way - 1, and each class needs an example in "
        f"support_x{top}"
    )
    (y,) = _checked([(message, in_range)], y)
    there = tf.reduce_max(tf.one_hot(tf.where(exists, y, -1), limit, dtype=tf.int32), axis=1)
    largest = tf.cast(tf.reduce_max(y, axis=1), tf.int32)
    complete = tf.reduce_all(tf.reduce_sum(there, axis=1) == largest + 1)
    (y,) = _checked([(message, complete)], y)
    return {"support_x": x, "support_y": y, "support_mask": mask}, tf.reduce_max(largest) + 1


def _same_tasks(inputs: Tensors) -> dict[str, tf.Tensor]:
    """The inputs, if all are for the same number of tasks, and there is some of everything."""
    counts = [tf.shape(x)[0] for x in inputs.values()]
    alike = tf.reduce_all(tf.equal(counts, counts[0]))
    checks = [(f"{', '.join(inputs)} must have the same number of tasks (dimension 0)", alike)]
    checks.append((f"{next(iter(inputs))} must hold at least one task", counts[0] > 0))
    if "query_x" in inputs:
        some = tf.shape(inputs["query_x"])[1] > 0
        checks.append(("query_x must hold at least one query for each task", some))
    return dict(zip(inputs, _checked(checks, *inputs.values()), strict=True))


def _checked(checks: Sequence[tuple[str, tf.Tensor]], *tensors: tf.Tensor) -> list[tf.Tensor]:
    """The tensors, after the checks, each a message and a condition."""
    asserts = [tf.debugging.Assert(condition, [message]) for message, condition in checks]
    with tf.control_dependencies(asserts):
        return [tf.identity(tensor) for tensor in tensors]


def _is_some(x: tf.Tensor) -> tf.Tensor:
    return tf.shape(x)[0] > 0


def _finite(name: str, x: tf.Tensor) -> tf.Tensor:
    return tf.debugging.assert_all_finite(x, f"{name} must be finite") if x.dtype.is_floating else x


def _spec_of_tasks(name: str, shape: Sequence[int | None], dtype: str) -> tf.TensorSpec:
    return tf.TensorSpec([None, *shape], dtype, name=name)
