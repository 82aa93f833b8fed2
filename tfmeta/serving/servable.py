"""The contents of a servable, with the answers to verify it against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmeta.data.images import ImageFormat
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.learners.output_kinds import by_class, n_classes
from tfmeta.serving.outputs import OUTPUTS
from tfmeta.serving.requests import IMAGE_INPUTS
from tfmeta.serving.signatures import Signature, adapted_signatures, learner_signatures
from tfmeta.serving.warmup import Request

# The number of classes in the warmup requests, if the network does not fix it.
N_WAY = 5

Answer = dict[str, np.ndarray]


class Servable(NamedTuple):
    """Everything an export writes, with reference requests and answers to verify it against.

    Attributes:
        signatures: dict of Signature by name. The default one is the first.
        warmup: list of Request. What a server replays when it loads the servable.
        expected: list of (Request, answer). The answers of the signatures in memory, which are
            the very functions that are written. The loaded servable must repeat them, which shows
            that writing, loading and restoring the variables changed nothing.
        reference: (Request, answer). One request to the default signature, answered by the plain
            model, `model(inputs)`, eagerly and so without any of the code in `signatures`. The
            loaded servable must agree, which shows that the signatures compute the right thing.
    """

    signatures: dict[str, Signature]
    warmup: list[Request]
    expected: list[tuple[Request, Answer]]
    reference: tuple[Request, Answer]


def adapted_servable(
    model: keras.Model,
    example_shape: tuple[int, ...],
    class_names: Sequence[str] | None,
    output_kind: str | None,
    image_format: ImageFormat | None,
) -> Servable:
    """Returns the servable of an adapted model. See `tfmeta.serving.export`.

    Raises:
        ValueError: If `output_kind` is missing, or `class_names` do not fit the model.
        ServableError: If a signature fails.
    """
    class_names = getattr(model, "class_names", None) if class_names is None else class_names
    output_kind = getattr(model, "output_kind", None) if output_kind is None else output_kind
    if output_kind not in OUTPUTS:
        raise ValueError(
            'Say what the model returns: output_kind="logits", "scores" or "values", or of one '
            'column for two classes "binary_logits" or "binary_scores" (the file of a plain Keras '
            f"model does not keep it); got {output_kind!r}."
        )
    dtype = _input_dtype(model)
    rng = np.random.default_rng(0)
    batches = [_random_examples(rng, (n, *example_shape), dtype) for n in (1, 3)]
    all_examples = np.concatenate(batches)
    predictions = _by_class(_call_eagerly(model, tf.constant(all_examples)), output_kind)
    if class_names is not None:
        class_names = _checked_names(class_names, output_kind, predictions.shape[-1])
        predictions = predictions[:, : len(class_names)]
    signatures = adapted_signatures(
        model, example_shape, dtype, output_kind, class_names, image_format
    )
    warmup = [
        Request(name, _request_inputs(signature, {"x": x}))
        for name, signature in signatures.items()
        for x in batches
    ]
    return Servable(
        signatures,
        warmup,
        [(request, _answer(signatures, request)) for request in warmup],
        (Request("serving_default", {"x": all_examples}), {OUTPUTS[output_kind]: predictions}),
    )


def learner_servable(
    learner: MetaLearner, example_shape: tuple[int, ...], image_format: ImageFormat | None
) -> Servable:
    """Returns the servable of a built learner. See `tfmeta.serving.export`.

    Raises:
        ServableError: If a signature fails.
    """
    is_regression = learner.output_kind == "values"
    output_shape = learner.prediction_shape(example_shape)
    n_outputs = None
    if output_shape is not None and not is_regression:
        n_outputs = n_classes(learner.output_kind, output_shape[-1])
    target_shape = output_shape if is_regression and output_shape else ()
    signatures = learner_signatures(learner, example_shape, target_shape, n_outputs, image_format)
    rng = np.random.default_rng(0)
    episodes = [
        _random_episode(rng, learner, n_tasks, example_shape, target_shape, n_outputs or N_WAY)
        for n_tasks in (1, 2)
    ]
    warmup: list[Request] = []
    expected: list[tuple[Request, Answer]] = []
    for episode in episodes:
        inputs = dict(episode)
        for name, signature in signatures.items():
            request = Request(name, _request_inputs(signature, inputs))
            answer = _answer(signatures, request)
            if name == "adapt":
                inputs |= answer  # for `predict`, which takes the state
            warmup.append(request)
            expected.append((request, answer))
    all_tasks = {key: np.concatenate([e[key] for e in episodes]) for key in episodes[0]}
    predictions = _by_class(
        _call_eagerly(learner, {k: tf.constant(x) for k, x in all_tasks.items()}),
        learner.output_kind,
    )
    reference = (
        Request("adapt_and_predict", all_tasks),
        {OUTPUTS[learner.output_kind]: predictions},
    )
    return Servable(signatures, warmup, expected, reference)


def _call_eagerly(model: keras.Model, inputs: Any) -> np.ndarray:
    """Returns the predictions of the plain model, in its variables' dtype."""
    return tf.cast(model(inputs, training=False), model.variable_dtype).numpy()


def _by_class(predictions: np.ndarray, output_kind: str) -> np.ndarray:
    return np.asarray(by_class(predictions, output_kind)[0])


def _answer(signatures: Mapping[str, Signature], request: Request) -> Answer:
    return signatures[request.signature].answer(request.signature, request.inputs)


# === Requests ===


def _random_episode(
    rng: np.random.Generator,
    learner: MetaLearner,
    n_tasks: int,
    example_shape: tuple[int, ...],
    target_shape: tuple[int, ...],
    n_way: int,
) -> dict[str, np.ndarray]:
    """Returns tasks with two examples of each class (or two of a function), and three queries."""
    dtype = learner.variable_dtype
    is_regression = learner.output_kind == "values"
    n_support = 2 if is_regression else 2 * n_way
    x = _random_examples(rng, (n_tasks, n_support, *example_shape), dtype)
    if is_regression:
        y = _random_examples(rng, (n_tasks, n_support, *target_shape), dtype)
    else:
        y = np.tile(np.arange(n_support) % n_way, (n_tasks, 1)).astype("int64")
    return {
        "support_x": x,
        "support_y": y,
        "support_mask": np.ones((n_tasks, n_support), dtype),
        "query_x": _random_examples(rng, (n_tasks, 3, *example_shape), dtype),
    }


def _random_examples(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if tf.as_dtype(dtype).is_floating:
        return rng.uniform(size=shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _request_inputs(
    signature: Signature, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns a signature's inputs, encoded if it takes images."""
    array_names = {images: name for name, images in IMAGE_INPUTS.items()}
    return {
        name: _encoded(arrays[array_names[name]]) if name in array_names else arrays[name]
        for name in signature.inputs
    }


def _encoded(x: np.ndarray) -> np.ndarray:
    """Returns PNG files `[…]` of images `[…, height, width, channels]` from 0 to 1."""
    pixels = np.round(np.asarray(x, "float32") * 255).astype("uint8")
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    encoded = np.array([tf.io.encode_png(image).numpy() for image in flat], dtype=object)
    return encoded.reshape(pixels.shape[:-3])


# === Adapted models ===


def _input_dtype(model: keras.Model) -> str:
    """Returns the dtype of a functional model's input, or else of the model's variables."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].dtype if inputs else model.variable_dtype


def _checked_names(class_names: Sequence[str], output_kind: str, n_outputs: int) -> list[str]:
    """Returns the class names as a list, which may be shorter than the network's outputs."""
    names = list(class_names)
    if output_kind == "values":
        raise ValueError("class_names are for classifiers; this model returns values.")
    is_text = isinstance(class_names, str) or not all(isinstance(name, str) for name in names)
    if is_text or not 1 <= len(names) <= n_outputs:
        raise ValueError(
            f"class_names must be a list of 1 to {n_outputs} strings, because the model has "
            f"{n_outputs} outputs; got {class_names!r}."
        )
    return names
