"""What a servable computes: signatures, pure functions of named tensors, and their checks.

Everything here runs inside of the exported graph. A bad request fails with an INVALID_ARGUMENT
error that names the input.
"""

from __future__ import annotations

import math
from collections import defaultdict
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

# How files of images begin. A PNG's width and height follow.
PNG, JPEG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff"

# What encoded images are called in place of arrays.
IMAGES = {"x": "images", "support_x": "support_images", "query_x": "query_images"}

# The output that holds what the model returns, by kind.
OUTPUTS = {"logits": "logits", "scores": "scores", "values": "predictions"}


class Signature(NamedTuple):
    """A function of a servable, and what it takes."""

    function: Callable[[Tensors], dict[str, tf.Tensor]]
    inputs: dict[str, tf.TensorSpec]


# === An adapted model ===


def of_adapted(
    model: keras.Model,
    example_shape: Sequence[int],
    dtype: str,
    output_kind: str,
    class_names: Sequence[str] | None,
    image_format: ImageFormat | None,
) -> dict[str, Signature]:
    """The signatures of a task that has been learned, by name; the default one first."""

    def predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        name = _name_in(inputs, "x")
        some = tf.shape(inputs[name])[0] > 0
        (x,) = _checked([(f"{name} must hold at least one example", some)], inputs[name])
        predictions = tf.cast(model(_finite(name, x), training=False), model.variable_dtype)
        return _named(predictions, output_kind, name, class_names)

    x = tf.TensorSpec([None, *example_shape], dtype, "x")
    signatures = {"serving_default": Signature(predict, {"x": x})}
    if image_format is not None:
        signatures["predict_images"] = _on_images(signatures["serving_default"], image_format)
    return {name: _of_its_shapes(signature) for name, signature in signatures.items()}


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
        checked, _ = support_of(inputs)
        name = _name_in(inputs, "query_x")
        queries = _finite(name, inputs[name])
        predictions = learner({**checked, "query_x": queries}, training=False)
        return _named(predictions, learner.output_kind, ", ".join(inputs))

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
    if sum(math.prod(n or 1 for n in leaf.shape) for leaf in state.leaves.values()) <= MOST_STATE:
        signatures |= _in_two_steps(learner, state, support, query, support_of)
    if image_format is not None:
        signatures |= {
            f"{name}_images": _on_images(signature, image_format)
            for name, signature in signatures.items()
        }
    return {name: _of_its_shapes(signature) for name, signature in signatures.items()}


class _State(NamedTuple):
    """What a task's state is: its structure; its tensors by name; and which sizes are one.

    `alike` are the inputs and dimensions, of a request, that the number of examples, or that of
    classes, makes as large as each other.
    """

    structure: Any
    leaves: dict[str, tf.TensorSpec]
    alike: list[list[tuple[str, int]]]


def _in_two_steps(
    learner: MetaLearner,
    state: _State,
    support: dict[str, tf.TensorSpec],
    query: dict[str, tf.TensorSpec],
    support_of: Callable[[Tensors], tuple[Tensors, tf.Tensor | None]],
) -> dict[str, Signature]:
    """The signatures `adapt`, to a state, and `predict`, from it."""

    def adapt(inputs: Tensors) -> dict[str, tf.Tensor]:
        checked, n_way = support_of(inputs)
        leaves = tf.map_fn(
            lambda x: keras.tree.flatten(learner.adapt_task(**x, n_way=n_way)),
            checked,
            fn_output_signature=list(state.leaves.values()),
        )
        of = f"learned from {_name_in(inputs, 'support_x')} and support_y"
        return {
            name: _finite(f"{name}, {of},", x) for name, x in zip(state.leaves, leaves, strict=True)
        }

    def predict(inputs: Tensors) -> dict[str, tf.Tensor]:
        checked = _fitting(_same_tasks(inputs), state)
        leaves = [_finite(name, checked[name]) for name in state.leaves]
        name = _name_in(inputs, "query_x")
        queries = _finite(name, checked[name])

        def one(elements: tuple[list[tf.Tensor], tf.Tensor]) -> tf.Tensor:
            task = keras.tree.pack_sequence_as(state.structure, elements[0])
            return tf.cast(learner.predict_task(task, elements[1]), learner.variable_dtype)

        predictions = tf.map_fn(
            one, (leaves, queries), fn_output_signature=tf.as_dtype(learner.variable_dtype)
        )
        return _named(predictions, learner.output_kind, f"the state and {name}")

    specs = {
        name: tf.TensorSpec([None, *leaf.shape], leaf.dtype, name=name)
        for name, leaf in state.leaves.items()
    }
    return {"adapt": Signature(adapt, support), "predict": Signature(predict, {**specs, **query})}


def _state_of_one(learner: MetaLearner, support: dict[str, tf.TensorSpec]) -> _State:
    """The state of a task, as `adapt_task` returns it."""

    def structure_for(n_support: int, n_way: int) -> Any:
        def adapt(x: tf.Tensor, y: tf.Tensor, mask: tf.Tensor) -> Any:
            return learner.adapt_task(x, y, mask, n_way=tf.constant(n_way))

        one = [tf.TensorSpec([n_support, *x.shape[2:]], x.dtype) for x in support.values()]
        outputs = tf.function(adapt, autograph=False).get_concrete_function(*one)
        return tf.nest.map_structure(
            lambda x: tf.TensorSpec(x.shape, x.dtype), outputs.structured_outputs
        )

    # What differs between tasks of two sizes is what a request decides.
    small, large = structure_for(6, 2), structure_for(7, 3)
    leaves, alike = {}, defaultdict(list)
    pairs = zip(keras.tree.flatten_with_path(small), keras.tree.flatten(large), strict=True)
    for (path, a), b in pairs:
        name = "_".join(["state", *map(str, path)])
        sizes = list(zip(a.shape, b.shape, strict=True))
        leaves[name] = tf.TensorSpec([m if m == n else None for m, n in sizes], a.dtype)
        for axis, (m, n) in enumerate(sizes, start=1):
            if m != n:
                alike[m, n].append((name, axis))
    return _State(small, leaves, list(alike.values()))


# === Encoded images ===


def _on_images(signature: Signature, image_format: ImageFormat) -> Signature:
    """The same on PNG or JPEG files in place of arrays."""

    def function(inputs: Tensors) -> dict[str, tf.Tensor]:
        # Under the images' names, for errors to name them.
        arrays = dict(inputs)
        for name, spec in signature.inputs.items():
            if name in IMAGES:
                images = IMAGES[name]
                mask = inputs["support_mask"] if name == "support_x" else None
                arrays[images] = tf.cast(
                    _decoded(images, inputs[images], mask, image_format), spec.dtype
                )
        return signature.function(arrays)

    specs = {}
    for name, spec in signature.inputs.items():
        if name in IMAGES:
            spec = tf.TensorSpec(spec.shape[:-3], tf.string, IMAGES[name])
        specs[IMAGES.get(name, name)] = spec
    return Signature(function, specs)


def _name_in(inputs: Tensors, name: str) -> str:
    """What a request calls an array: where it came as images, as those."""
    return name if name in inputs else IMAGES[name]


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
                lambda: image_format.from_bytes(_of_bearable_size(name, elements[0])),
                lambda: tf.zeros(image_format.shape, tf.uint8),
            )

    pixels = tf.map_fn(
        decode,
        (tf.reshape(encoded, [-1]), tf.reshape(exists, [-1])),
        fn_output_signature=tf.TensorSpec(image_format.shape, tf.uint8),
    )
    shape = tf.concat([tf.shape(encoded), image_format.shape], axis=0)
    return tf.reshape(tf.cast(pixels, tf.float32) / 255, shape)


def _of_bearable_size(name: str, encoded: tf.Tensor) -> tf.Tensor:
    """The file, if it does not claim, in its header, to have too many pixels."""
    size = tf.cond(
        tf.strings.substr(encoded, 0, len(PNG)) == PNG,
        lambda: tf.io.decode_raw(
            tf.strings.substr(encoded, len(PNG), 8), tf.int32, little_endian=False
        ),
        lambda: tf.image.extract_jpeg_shape(encoded)[:2],
    )
    n_pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    bearable = tf.reduce_all(size > 0) & (n_pixels <= MOST_PIXELS)
    message = f"{name} must have from 1 to {MOST_PIXELS} pixels each"
    return _checked([(message, bearable)], encoded)[0]


# === Outputs ===


def _named(
    predictions: tf.Tensor,
    output_kind: str,
    inputs: str,
    class_names: Sequence[str] | None = None,
) -> dict[str, tf.Tensor]:
    """The outputs of a prediction `[…, n_way]` or `[…, *y]` for the inputs of these names."""
    if class_names is not None:
        predictions = predictions[..., : len(class_names)]
    predictions = _finite(f"the predictions for {inputs}", predictions)
    outputs = {OUTPUTS[output_kind]: predictions}
    if output_kind == "logits":
        outputs["probabilities"] = tf.nn.softmax(predictions)
    if class_names is not None:
        outputs["classes"] = tf.repeat([list(class_names)], tf.shape(predictions)[0], axis=0)
    return outputs


# === Checks ===


def _of_its_shapes(signature: Signature) -> Signature:
    """The same, but it looks whether its inputs have their shapes: a server does not."""

    def function(inputs: Tensors) -> dict[str, tf.Tensor]:
        return signature.function(
            {name: _of_shape(name, inputs[name], spec) for name, spec in signature.inputs.items()}
        )

    return Signature(function, signature.inputs)


def _of_shape(name: str, x: tf.Tensor, spec: tf.TensorSpec) -> tf.Tensor:
    # What TensorFlow takes for a fact about x must be forgotten, or nothing would be left to check.
    x = tf.raw_ops.PlaceholderWithDefault(input=x, shape=None, name=f"{name}_of_any_shape")
    return tf.ensure_shape(x, spec.shape, name=f"{name}_must_have_the_shape")


def _checked_support(
    inputs: Tensors, is_regression: bool, n_outputs: int | None
) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
    """The support sets, whatever was in their padding; and the number of classes."""
    inputs = _same_tasks(inputs)
    name = _name_in(inputs, "support_x")
    x, y, mask = (inputs[key] for key in (name, "support_y", "support_mask"))
    sizes = [tf.shape(tensor)[1] for tensor in (x, y, mask)]
    alike = tf.reduce_all(tf.equal(sizes, sizes[0]))
    message = f"{name}, support_y and support_mask must have the same number of examples"
    x, y, mask = _checked([(message, alike)], _finite(name, x), y, mask)
    exists = mask > 0
    x, y, mask = _checked(
        [
            ("support_mask must be 0 or 1", tf.reduce_all((mask == 0) | (mask == 1))),
            (
                f"{name} must hold at least one example for each task, with support_mask 1",
                tf.reduce_all(tf.reduce_any(exists, axis=1)),
            ),
        ],
        x,
        y,
        mask,
    )
    # What is not used must not do harm: a large number's square may be infinite.
    x = tf.where(_like(exists, x), x, 0)
    if is_regression:
        y = _finite("support_y", y)
        y = tf.where(_like(exists, y), y, 0)
        return {"support_x": x, "support_y": y, "support_mask": mask}, None
    y = tf.where(exists, y, 0)
    limit = sizes[0] if n_outputs is None else tf.minimum(sizes[0], n_outputs)
    in_range = tf.reduce_all((y >= 0) & (y < tf.cast(limit, y.dtype)))
    top = "" if n_outputs is None else f", and the network tells {n_outputs} classes apart"
    message = (
        "support_y must be labels from 0 to n_way - 1, and each class needs an example in "
        f"{name}{top}"
    )
    (y,) = _checked([(message, in_range)], y)
    there = tf.reduce_max(tf.one_hot(tf.where(exists, y, -1), limit, dtype=tf.int32), axis=1)
    largest = tf.cast(tf.reduce_max(y, axis=1), tf.int32)
    complete = tf.reduce_all(tf.reduce_sum(there, axis=1) == largest + 1)
    (y,) = _checked([(message, complete)], y)
    return {"support_x": x, "support_y": y, "support_mask": mask}, tf.reduce_max(largest) + 1


def _like(exists: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """`exists [T, S]` with dimensions of 1 for those that x has besides."""
    return tf.reshape(exists, tf.concat([tf.shape(exists), [1] * (x.shape.rank - 2)], axis=0))


def _same_tasks(inputs: Tensors) -> dict[str, tf.Tensor]:
    """The inputs, if all are for the same number of tasks, and there is some of everything."""
    first, *others = inputs
    n_tasks = tf.shape(inputs[first])[0]
    checks = [(f"{first} must hold at least one task", n_tasks > 0)]
    for name in others:
        alike = tf.shape(inputs[name])[0] == n_tasks
        checks.append((f"{name} and {first} must have the same number of tasks", alike))
    for name in ("query_x", IMAGES["query_x"]):
        if name in inputs:
            some = tf.shape(inputs[name])[1] > 0
            checks.append((f"{name} must hold at least one query for each task", some))
    return dict(zip(inputs, _checked(checks, *inputs.values()), strict=True))


def _fitting(inputs: dict[str, tf.Tensor], state: _State) -> dict[str, tf.Tensor]:
    """The inputs, if the parts of the state may be of one task."""
    checks = []
    for places in state.alike:
        sizes = [tf.shape(inputs[name])[axis] for name, axis in places]
        where = ", ".join(f"{name} (dimension {axis})" for name, axis in places)
        fit = tf.reduce_all(tf.equal(sizes, sizes[0])) & (sizes[0] > 0)
        checks.append((f"{where} must have one size, as adapt returned them", fit))
    return dict(zip(inputs, _checked(checks, *inputs.values()), strict=True))


def _checked(checks: Sequence[tuple[str, tf.Tensor]], *tensors: tf.Tensor) -> list[tf.Tensor]:
    """The tensors, after the checks, each a message and a condition."""
    asserts = [tf.debugging.Assert(condition, [message]) for message, condition in checks]
    with tf.control_dependencies(asserts):
        return [tf.identity(tensor) for tensor in tensors]


def _finite(name: str, x: tf.Tensor) -> tf.Tensor:
    return tf.debugging.assert_all_finite(x, f"{name} must be finite") if x.dtype.is_floating else x


def _spec_of_tasks(name: str, shape: Sequence[int | None], dtype: str) -> tf.TensorSpec:
    return tf.TensorSpec([None, *shape], dtype, name=name)
