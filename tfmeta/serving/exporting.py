"""From a learner, or a task that it has learned, to a servable of TensorFlow Serving."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfmeta.data.images import ImageFormat
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.functional import batch_norm_layers
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.serving import gate, signatures
from tfmeta.serving.publishing import publish
from tfmeta.serving.server import write_settings
from tfmeta.serving.signatures import Signature
from tfmeta.serving.warmup import Request, write_requests

# The output that holds what the model returns, by kind.
OUTPUTS = {"logits": "logits", "scores": "scores", "values": "predictions"}
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

    Args:
        model: A learner, or a model that `learner.adapt` returned, perhaps from a file.
            A learner adapts within each request, and keeps nothing of it.
        folder: The servable's folder; its name is the servable's name.
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
        ValueError: If the model is transductive (unless allowed), or an option is missing.
        ServableError: If the servable fails a check; nothing is published then.

    Example:

    >>> import tempfile, tfmeta
    >>> learner = tfmeta.PrototypicalNetwork(
    ...     tfmeta.backbones.conv4(None, (28, 28, 1)), batch_norm="support"
    ... )
    >>> folder = Path(tempfile.mkdtemp(), "few_shot")
    >>> tfmeta.serving.export(learner, folder).relative_to(folder)
    PosixPath('1')
    """
    _check_transductive(model, allow_transductive)
    shape = tuple(_example_shape(model) if example_shape is None else example_shape)
    if image_format is not None and image_format.shape != shape:
        raise ValueError(f"{image_format} does not fit the model's examples of shape {shape}.")
    if isinstance(model, MetaLearner):
        if class_names is not None or output_kind is not None:
            raise ValueError(
                "class_names and output_kind are for adapted models, not for learners."
            )
        servable = _of_learner(model, shape, image_format)
    else:
        servable = _of_adapted(model, shape, class_names, output_kind, image_format)
    return _publish(model, Path(folder), *servable, allow_transductive, keep)


Servable = tuple[dict[str, Signature], list[Request], list[tuple[Request, dict[str, Any]]]]


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
    rng = np.random.default_rng(0)
    batches = [_examples(rng, (n, *shape), model.variable_dtype) for n in (1, 3)]
    requests = [Request("serving_default", {"x": x}) for x in batches]
    key = OUTPUTS[output_kind]
    n_classes = None if class_names is None else len(class_names)
    expected = [
        (request, {key: np.asarray(model(request.inputs["x"], training=False))[:, :n_classes]})
        for request in requests
    ]
    if image_format is not None:
        requests += [Request("predict_images", {"images": _images(x)}) for x in batches]
    return (
        signatures.of_adapted(model, shape, output_kind, class_names, image_format),
        requests,
        expected,
    )


def _of_learner(
    learner: MetaLearner, shape: tuple[int, ...], image_format: ImageFormat | None
) -> Servable:
    dtype = learner.variable_dtype
    is_regression = learner.output_kind == "values"
    outputs = _outputs_shape(learner, shape)
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
    # In a graph of unknown sizes, too, where the same kernels compute it: after some inner steps, a
    # difference by rounding alone can be any size.
    in_memory = tf.function(
        lambda inputs: learner(inputs, training=False),
        input_signature=[named["adapt_and_predict"].inputs],
        autograph=False,
    )
    for inputs in (episode(1), episode(2)):
        predictions = in_memory(inputs).numpy()
        if "adapt" in named:
            function, specs = named["adapt"]
            state = function({name: tf.constant(inputs[name]) for name in specs})
            inputs = {**inputs, **{name: x.numpy() for name, x in state.items()}}
        for name, signature in named.items():
            request = Request(name, _for(signature, inputs))
            requests.append(request)
            # Of encoded images, pixels are rounded.
            if not name.endswith("_images"):
                expected.append((request, {} if name == "adapt" else {key: predictions}))
    return named, requests, expected


def _for(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of a signature, encoded where it takes images."""
    images = {"support_images": "support_x", "query_images": "query_x"}
    return {
        name: _images(inputs[images[name]]) if name in images else inputs[name]
        for name in signature.inputs
    }


def _publish(
    model: keras.Model,
    folder: Path,
    named: dict[str, Signature],
    requests: list[Request],
    expected: list[tuple[Request, dict[str, Any]]],
    allow_transductive: bool,
    keep: int,
) -> Path:
    def write(version: Path) -> None:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for name, signature in named.items():
            archive.add_endpoint(name, signature.function, [dict(signature.inputs)])
        archive.write_out(str(version), verbose=False)
        write_requests(version, folder.name, requests)
        gate.check(version, allow_transductive)
        gate.check_agreement(version, expected)

    published = publish(folder, write, keep)
    write_settings(folder.parent)
    return published


def _check_transductive(model: keras.Model, allowed: bool) -> None:
    learner = model.learner if isinstance(model, AdaptedModel) else model
    mode = getattr(learner, "batch_norm", None)
    if mode == "transductive" and batch_norm_layers(learner) and not allowed:
        raise ValueError(
            'A learner with batch_norm="transductive" normalises the queries of a request by their '
            "own statistics, so that an answer depends on the other queries that happen to be in "
            'the request. Train and export one with batch_norm="support" or "running", or pass '
            "allow_transductive=True if every request holds all queries of its task."
        )


def _example_shape(model: keras.Model) -> tuple[int, ...]:
    learner = model.learner if isinstance(model, AdaptedModel) else model
    for part in (getattr(learner, "encoder", None), getattr(learner, "network", None), learner):
        shape = getattr(part, "input_shape", None)
        if isinstance(shape, list):  # CAVIA's network takes a context, too.
            shape = shape[0]
        if shape is not None:
            return tuple(shape[1:])
    raise ValueError(
        f"{model.name!r} does not tell the shape of its examples: pass example_shape=."
    )


def _outputs_shape(learner: MetaLearner, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a prediction, where the learner's network fixes it; None where labels do."""
    if not hasattr(learner, "network"):
        return None
    if learner.output_kind == "values":
        outputs = learner.network.output_shape
        return tuple(outputs[1:])
    return (learner._n_outputs(shape),)


def _examples(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return rng.uniform(size=shape).astype(dtype)


def _images(x: np.ndarray) -> np.ndarray:
    """Pictures `[…]`, encoded, from arrays `[…, height, width, channels]`."""
    pixels = np.round(np.asarray(x, "float32") * 255).astype("uint8")
    flat = pixels.reshape(-1, *pixels.shape[-3:])
    encoded = np.array([tf.io.encode_png(image).numpy() for image in flat], dtype=object)
    return encoded.reshape(pixels.shape[:-3])
