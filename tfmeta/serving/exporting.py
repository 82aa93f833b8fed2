"""From a learner, or a task that it has learned, to a servable of TensorFlow Serving."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfmeta.data.images import ImageFormat
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.functional import normalises_together
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.serving import gate, signatures
from tfmeta.serving.server import write_settings
from tfmeta.serving.signatures import IMAGES, OUTPUTS, Signature
from tfmeta.serving.warmup import MISSING, Request, write_requests
from tfmeta.versions import publish

N_WAY = 5  # of warmup requests, where the network does not say it


def export(
    model: keras.Model,
    folder: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    output_kind: str | None = None,
    image_format: ImageFormat | None = None,
    example_shape: Sequence[int] | None = None,
    allow_transductive: bool = False,
    keep: int = 3,
) -> Path:
    """Publishes a model as a new version of a servable, which TensorFlow Serving can load.

    What is published has passed the checks of `tfmeta.serving.check`, and predicts as the model
    does. Beside the servables' folders, the settings of a server are written.

    Publishers may be at work at once, in threads or processes; but while a learner is exported,
    nobody may train it.

    Args:
        model: A learner, or a model that `learner.adapt` returned, perhaps from a file.
            A learner adapts within each request, and keeps nothing of it.
        folder: The servable's folder; its name is the servable's name. Its parent is for servables:
            the server's settings are written there.
        class_names: Names of the classes 0, 1, … of an adapted model; by default its own.
        output_kind: What an adapted model returns: `"logits"`, `"scores"` or `"values"`. By
            default what `adapt` noted; a plain Keras model's file does not keep it.
        image_format: How images are prepared, for signatures that take PNG or JPEG files.
        example_shape: The shape of x, where the model does not tell it.
        allow_transductive: Whether to publish a model whose answers depend on the queries beside.
        keep: Versions to keep.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: If the model is transductive (unless allowed), or an option is missing or does
            not fit.
        ServableError: If the servable fails a check; nothing is published then.
        ImportError: Without the extra `tfmeta[serving]`.
        OSError: If the folder cannot be written.

    Warns:
        RuntimeWarning: If the version was published, but not the server's settings.

    Example:

    >>> import tempfile, tfmeta
    >>> learner = tfmeta.PrototypicalNetwork(
    ...     tfmeta.backbones.conv4(None, (28, 28, 1)), batch_norm="support"
    ... )
    >>> folder = Path(tempfile.mkdtemp(), "few_shot")
    >>> tfmeta.serving.export(learner, folder).relative_to(folder)
    PosixPath('1')
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise ImportError(MISSING)
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a learner or a Keras model; got {model!r}.")
    folder = Path(folder).expanduser().absolute()
    if folder.name in ("", ".."):
        raise ValueError("The servable needs a name: give a folder of its own, as in servables/it.")
    _check_transductive(model, allow_transductive)
    shape = _example_shape(model, example_shape)
    if image_format is not None and getattr(image_format, "shape", None) != shape:
        raise ValueError(
            f"image_format must be an ImageFormat of the model's examples, which have the shape "
            f"{shape}; got {image_format!r}."
        )
    if isinstance(model, MetaLearner):
        if not model.built:
            model.build({"support_x": (None, None, *shape)})
        if class_names is not None or output_kind is not None:
            raise ValueError(
                "class_names and output_kind are for adapted models, not for learners."
            )
        servable = _of_learner(model, shape, image_format)
    else:
        servable = _of_adapted(model, shape, class_names, output_kind, image_format)
    return _publish(model, folder, servable, allow_transductive, keep)


class Servable(NamedTuple):
    """What is to be written, and the proof that it is right.

    `expected` are requests, and what the model in memory answers.
    """

    signatures: dict[str, Signature]
    warmup: list[Request]
    expected: list[tuple[Request, dict[str, Any]]]


def _of_adapted(
    model: keras.Model,
    shape: tuple[int, ...],
    class_names: Sequence[str] | None,
    output_kind: str | None,
    image_format: ImageFormat | None,
) -> Servable:
    class_names = getattr(model, "class_names", None) if class_names is None else class_names
    output_kind = getattr(model, "output_kind", None) if output_kind is None else output_kind
    if output_kind not in OUTPUTS:
        raise ValueError(
            'Say what the model returns: output_kind="logits", "scores" or "values" (a plain Keras '
            f"model's file does not keep it); got {output_kind!r}."
        )
    dtype = _input_dtype(model)
    rng = np.random.default_rng(0)
    batches = [_examples(rng, (n, *shape), dtype) for n in (1, 3)]
    predict = _in_memory(model, tf.TensorSpec([None, *shape], dtype))
    predictions = [predict(x) for x in batches]
    if class_names is not None:
        class_names = _checked_names(class_names, output_kind, predictions[0].shape[-1])
        predictions = [of_all[:, : len(class_names)] for of_all in predictions]
    requests = [Request("serving_default", {"x": x}) for x in batches]
    key = OUTPUTS[output_kind]
    expected = [(r, {key: p}) for r, p in zip(requests, predictions, strict=True)]
    if image_format is not None:
        requests += [Request("predict_images", {"images": _images(x)}) for x in batches]
    named = signatures.of_adapted(model, shape, dtype, output_kind, class_names, image_format)
    return Servable(named, requests, expected)


def _checked_names(class_names: Sequence[str], output_kind: str, n_outputs: int) -> list[str]:
    """The names; of a task with fewer classes than the network has outputs, so many."""
    names = list(class_names)
    if output_kind == "values":
        raise ValueError("class_names are for classifiers; this model returns values.")
    is_text = isinstance(class_names, str) or not all(isinstance(name, str) for name in names)
    if is_text or not 1 <= len(names) <= n_outputs:
        raise ValueError(
            f"class_names must be a list of 1 to {n_outputs} strings, for the model has "
            f"{n_outputs} outputs; got {class_names!r}."
        )
    return names


def _of_learner(
    learner: MetaLearner, shape: tuple[int, ...], image_format: ImageFormat | None
) -> Servable:
    dtype = learner.variable_dtype
    is_regression = learner.output_kind == "values"
    outputs = learner.prediction_shape(shape)
    n_way = N_WAY if outputs is None else outputs[-1]
    rng = np.random.default_rng(0)

    def episode(n_tasks: int) -> dict[str, np.ndarray]:
        n_support = 2 * (1 if is_regression else n_way)
        y: np.ndarray = np.tile(np.arange(n_support) % n_way, (n_tasks, 1)).astype("int64")
        if is_regression:
            assert outputs is not None
            y = _examples(rng, (n_tasks, n_support, *outputs), dtype)
        return {
            "support_x": _examples(rng, (n_tasks, n_support, *shape), dtype),
            "support_y": y,
            "support_mask": np.ones((n_tasks, n_support), dtype),
            "query_x": _examples(rng, (n_tasks, 3, *shape), dtype),
        }

    named = signatures.of_learner(
        learner,
        shape,
        outputs if is_regression and outputs else (),
        None if outputs is None or is_regression else n_way,
        image_format,
    )
    requests: list[Request] = []
    expected: list[tuple[Request, dict[str, Any]]] = []
    key = OUTPUTS[learner.output_kind]
    adapt_and_predict = _in_memory(learner, named["adapt_and_predict"].inputs)
    for inputs in (episode(1), episode(2)):
        predictions = adapt_and_predict(inputs)
        if "adapt" in named:
            function, specs = named["adapt"]
            adapt = tf.function(function, input_signature=[specs], autograph=False)
            with gate.named("The signature 'adapt' fails on a warmup request"):
                state = adapt({name: tf.constant(inputs[name]) for name in specs})
            inputs = {**inputs, **{name: x.numpy() for name, x in state.items()}}
        for name, signature in named.items():
            request = Request(name, _for(signature, inputs))
            requests.append(request)
            # Of encoded images, pixels are rounded.
            if not name.endswith("_images"):
                expected.append((request, {} if name == "adapt" else {key: predictions}))
    return Servable(named, requests, expected)


def _in_memory(model: keras.Model, spec: Any) -> Callable[[Any], np.ndarray]:
    """The model's predictions, computed in a graph of unknown sizes, as those of the servable.

    Other kernels round otherwise, and after some inner steps such a difference can be any size.
    """
    function = tf.function(
        lambda inputs: tf.cast(model(inputs, training=False), model.variable_dtype),
        input_signature=[spec],
        autograph=False,
    )
    return lambda inputs: function(inputs).numpy()


def _for(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of a signature, encoded where it takes images."""
    arrays = {images: x for x, images in IMAGES.items()}
    return {
        name: _images(inputs[arrays[name]]) if name in arrays else inputs[name]
        for name in signature.inputs
    }


def _publish(
    model: keras.Model, folder: Path, servable: Servable, allow_transductive: bool, keep: int
) -> Path:
    def write(version: Path) -> None:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for name, signature in servable.signatures.items():
            archive.add_endpoint(name, signature.function, [dict(signature.inputs)])
        archive.write_out(str(version), verbose=False)
        write_requests(version, folder.name, servable.warmup)
        gate.check(version, allow_transductive, servable.expected)

    published = publish(folder, write, keep)
    try:
        write_settings(folder.parent)
    except OSError as error:
        warnings.warn(
            f"{published} was published, but the server's settings beside could not be written: "
            f"{error}",
            RuntimeWarning,
            stacklevel=3,
        )
    return published


def _check_transductive(model: keras.Model, allowed: bool) -> None:
    learner = model.learner if isinstance(model, AdaptedModel) else model
    mode: Any = getattr(learner, "batch_norm", None)
    if normalises_together(mode, learner) and not allowed:
        raise ValueError(
            'A learner with batch_norm="transductive" normalises the queries of a request by their '
            "own statistics, so that an answer depends on the other queries that happen to be in "
            "the request. Export (or, for a task, adapt with) "
            'learner.with_batch_norm("support"), on the command line --batch-norm support; or '
            'train one with batch_norm="support" or "running"; or pass allow_transductive=True '
            "(--allow-transductive) if every request holds all queries of its task."
        )


def _example_shape(model: keras.Model, given: Sequence[int] | None) -> tuple[int, ...]:
    learner = model.learner if isinstance(model, AdaptedModel) else model
    if isinstance(learner, MetaLearner):
        known = learner.example_shape
    else:
        batch = getattr(learner, "input_shape", None)
        if isinstance(batch, list | dict):
            raise ValueError(f"{model.name!r} must take one input; it takes {batch}.")
        known = None if batch is None else tuple(batch[1:])
    if given is None:
        if known is None or None in known:
            raise ValueError(
                f"{model.name!r} does not tell the shape of its examples: pass example_shape=."
            )
        return known
    shape = tuple(given)
    if known is not None and not tf.TensorShape(known).is_compatible_with(shape):
        raise ValueError(f"{model.name!r} takes examples of shape {known}, not {shape}.")
    return shape


def _input_dtype(model: keras.Model) -> str:
    """The dtype of the examples: that of a functional model's input, or else of its variables."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].dtype if inputs else model.variable_dtype


def _examples(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if tf.as_dtype(dtype).is_floating:
        return rng.uniform(size=shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _images(x: np.ndarray) -> np.ndarray:
    """Pictures `[…]`, encoded, from arrays `[…, height, width, channels]`."""
    pixels = np.round(np.asarray(x, "float32") * 255).astype("uint8")
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    encoded = np.array([tf.io.encode_png(image).numpy() for image in flat], dtype=object)
    return encoded.reshape(pixels.shape[:-3])
