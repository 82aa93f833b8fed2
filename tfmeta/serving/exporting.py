"""Exports a learner or an adapted model as a servable of TensorFlow Serving."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfmeta.data.images import ImageFormat
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.networks import normalises_together
from tfmeta.serving import gate
from tfmeta.serving.requests import Tensors
from tfmeta.serving.servable import Servable, adapted_servable, learner_servable
from tfmeta.serving.signatures import Signature
from tfmeta.serving.warmup import MISSING, write_requests
from tfmeta.versions import publish


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

    A version is published only if it passes the checks of `tfmeta.serving.check` and predicts as
    the model does. Nothing is written outside the folder. A server also needs settings that name
    its servables: see `tfmeta.serving.write_settings`.

    Several threads or processes may export at the same time, but do not train a learner while it
    is being exported.

    Args:
        model: keras.Model. A learner, or a model that `learner.adapt` returned (or that was loaded
            from its file). A learner adapts within each request, and the server keeps no state.
        folder: str or path. The servable's folder, whose name is the servable's name. It is
            created if necessary.
        class_names: sequence of str or None. The names of the classes 0, 1, … of an adapted
            model. Defaults to None: its own `class_names`, if it has any.
        output_kind: str or None. What an adapted model returns: "logits", "scores", "values", or of
            one column for two classes "binary_logits" or "binary_scores". Defaults to None: the
            kind that `adapt` stored in the model. The file of a plain Keras model does not keep it.
        image_format: ImageFormat or None. How images become examples. Defaults to None: no
            signatures that take PNG or JPEG files.
        example_shape: sequence of int or None. The shape of one example. Defaults to None: the
            shape that the model tells.
        allow_transductive: bool. Whether to publish a model whose answer for a query depends on
            the other queries of the request. Defaults to False.
        keep: int. The number of versions to keep, the new one included. Defaults to 3.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: If the model is transductive (unless allowed), or an option is missing or does
            not fit.
        ServableError: If the servable fails a check. Nothing is published then.
        ImportError: Without the extra `tfmeta[serving]`.
        OSError: If the folder cannot be written.

    Example:

    >>> import tempfile, tfmeta
    >>> learner = tfmeta.PrototypicalNetwork(
    ...     tfmeta.backbones.conv4(None, (28, 28, 1)), batch_norm="support"
    ... )
    >>> folder = Path(tempfile.mkdtemp(), "few_shot")
    >>> tfmeta.serving.export(learner, folder).relative_to(folder).as_posix()
    '1'
    """
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise ImportError(MISSING)
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a learner or a Keras model; got {model!r}.")
    folder = Path(folder).expanduser().absolute()
    if folder.name in ("", ".."):
        raise ValueError(
            "The servable needs a name: give it a folder of its own, as in servables/my_task."
        )
    _check_transductive(model, allow_transductive)
    shape = _example_shape(model, example_shape)
    if image_format is not None and getattr(image_format, "shape", None) != shape:
        raise ValueError(
            f"image_format must be an ImageFormat of the model's examples, which have the shape "
            f"{shape}; got {image_format!r}."
        )
    if isinstance(model, MetaLearner):
        if class_names is not None or output_kind is not None:
            raise ValueError(
                "class_names and output_kind are for adapted models, not for learners."
            )
        if not model.built:
            model.build({"support_x": (None, None, *shape)})
        servable = learner_servable(model, shape, image_format)
    else:
        servable = adapted_servable(model, shape, class_names, output_kind, image_format)
    return publish(
        folder,
        lambda version: _write(version, folder.name, model, servable, allow_transductive),
        keep,
    )


def _write(
    version: Path, name: str, model: keras.Model, servable: Servable, allow_transductive: bool
) -> None:
    """Writes a servable into the empty folder of a version, and checks it there."""
    archive = keras.export.ExportArchive()
    # The archive saves the variables of its functions by itself. Tracking the model directly would
    # save them twice; tracked within a module, only its lookup tables are added.
    tracked = tf.Module()
    tracked.model = model
    archive.track(tracked)
    for signature_name, signature in servable.signatures.items():
        archive.add_endpoint(signature_name, _endpoint(signature), [dict(signature.inputs)])
    archive.write_out(str(version), verbose=False)
    write_requests(version, name, servable.warmup)
    gate.check(version, allow_transductive, servable.expected, servable.reference)


def _endpoint(signature: Signature) -> Callable[[Tensors], dict[str, tf.Tensor]]:
    """Returns a function that only calls the signature.

    When TensorFlow saves a `tf.function`, it traces it again, but not the functions that it calls.
    """
    return lambda inputs: signature.function(inputs)


def _check_transductive(model: keras.Model, allowed: bool) -> None:
    """Raises a ValueError if queries are normalised by their own statistics, unless allowed."""
    learner = model.learner if isinstance(model, AdaptedModel) else model
    mode: Any = getattr(learner, "batch_norm", None)
    if normalises_together(mode, learner) and not allowed:
        raise ValueError(
            'A learner with batch_norm="transductive" normalises the queries of a request by their '
            "own statistics, so an answer depends on the other queries that happen to be in the "
            'request. Use learner.with_batch_norm("support") (--batch-norm support) to export it '
            'or to adapt it to the task that you export; train with batch_norm="support" or '
            '"running"; or, if every request holds all queries of its task, pass '
            "allow_transductive=True (--allow-transductive)."
        )


def _example_shape(model: keras.Model, given: Sequence[int] | None) -> tuple[int, ...]:
    """Returns an example's shape: the given one after a check, or the model's."""
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
