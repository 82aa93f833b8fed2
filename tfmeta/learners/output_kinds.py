"""The meaning of a learner's predictions, as the loss of its tasks tells it."""

from __future__ import annotations

import functools
from typing import Any, Literal

import keras

# "logits" and "scores" (from 0 to 1) have one column per class. "binary_logits" and
# "binary_scores" have one column for two classes, the logit or score of class 1.
OutputKind = Literal["logits", "scores", "binary_logits", "binary_scores", "values"]

# The targets that a loss takes: labels `[S]`, one-hot vectors `[S, n_way]`, labels 0 and 1 for one
# column, or values of the predictions' shape.
Targets = Literal["labels", "one-hot", "binary", "values"]

_losses = keras.losses
_FAMILIES: dict[Targets, tuple[Any, ...]] = {
    "labels": (
        _losses.SparseCategoricalCrossentropy,
        _losses.sparse_categorical_crossentropy,
    ),
    "one-hot": (
        _losses.CategoricalCrossentropy,
        _losses.CategoricalFocalCrossentropy,
        _losses.categorical_crossentropy,
        _losses.categorical_focal_crossentropy,
    ),
    "binary": (
        _losses.BinaryCrossentropy,
        _losses.BinaryFocalCrossentropy,
        _losses.binary_crossentropy,
        _losses.binary_focal_crossentropy,
    ),
}
_FOR_VALUES = (
    *(_losses.MeanSquaredError, _losses.mean_squared_error),
    *(_losses.MeanAbsoluteError, _losses.mean_absolute_error),
    *(_losses.MeanAbsolutePercentageError, _losses.mean_absolute_percentage_error),
    *(_losses.MeanSquaredLogarithmicError, _losses.mean_squared_logarithmic_error),
    *(_losses.Huber, _losses.huber, _losses.LogCosh, _losses.log_cosh),
    *(_losses.Poisson, _losses.poisson, _losses.KLDivergence, _losses.kl_divergence),
    *(_losses.CosineSimilarity, _losses.cosine_similarity),
)
_MARGINS = (
    *(_losses.Hinge, _losses.SquaredHinge, _losses.CategoricalHinge),
    *(_losses.hinge, _losses.squared_hinge, _losses.categorical_hinge),
)


def targets_of(loss: Any) -> Targets:
    """Returns what targets a loss takes. A user's own function takes values.

    Args:
        loss: keras.losses.Loss or function, as `keras.losses.get` returns.

    Example:

    >>> targets_of(keras.losses.BinaryCrossentropy(from_logits=True))
    'binary'
    """
    return next((kind for kind, known in _FAMILIES.items() if _is_one_of(loss, known)), "values")


def takes_logits(loss: Any) -> bool:
    """Returns whether a cross-entropy takes logits instead of probabilities."""
    if isinstance(loss, functools.partial):
        return bool(loss.keywords.get("from_logits", False))
    # A name resolves to Keras's function, which takes probabilities.
    return bool(getattr(loss, "from_logits", False))


def output_kind(loss: Any) -> OutputKind:
    """Returns the kind of predictions that a loss takes.

    Args:
        loss: keras.losses.Loss or function, as `keras.losses.get` returns.
    """
    targets = targets_of(loss)
    if targets == "values":
        return "values"
    if targets == "binary":
        return "binary_logits" if takes_logits(loss) else "binary_scores"
    return "logits" if takes_logits(loss) else "scores"


def compares_equal_shapes(loss: Any) -> bool:
    """Returns whether a loss is one of Keras's for values, which take targets of the same shape.

    Keras broadcasts others silently.
    """
    return _is_one_of(loss, _FOR_VALUES)


def check_loss_of_tasks(loss: Any) -> None:
    """Raises a ValueError for an inner loss whose predictions have no probabilities."""
    if _is_one_of(loss, _MARGINS):
        raise ValueError(
            f"inner_loss must be a cross-entropy for classes; {loss!r} compares margins, of which "
            "no probabilities follow."
        )


def check_outputs(loss: Any, shape: tuple[int | None, ...], name: str, in_use: bool = True) -> None:
    """Raises a ValueError if a network's outputs do not fit the loss of tasks.

    Args:
        loss: keras.losses.Loss or function. The loss.
        shape: tuple of int. The shape of the network's output for one example.
        name: str. The network's name.
        in_use: bool. Whether tasks are learned already. A network with one output is not refused
            before. Defaults to True.
    """
    targets = targets_of(loss)
    if targets == "binary" and shape != (1,):
        raise ValueError(
            f"Binary cross-entropy is for a network with one output, for two classes; "
            f"{name!r} returns {shape} for each example. For classes, leave inner_loss out, or "
            "take CategoricalCrossentropy for one-hot labels; for several labels of each example, "
            "pass a function of your own."
        )
    if in_use and targets in ("labels", "one-hot") and shape == (1,):
        raise ValueError(
            f"The network {name!r} has one output, which tells no classes apart. For two classes, "
            "pass inner_loss=keras.losses.BinaryCrossentropy(from_logits=True), or give it one "
            'output per class; for regression, pass for example inner_loss="mse".'
        )


def check_compiled_loss(kind: str, loss: Any, name: str) -> None:
    """Raises a ValueError if a compiled loss takes another kind of predictions than there are.

    Args:
        kind: str. The predictions' `OutputKind`.
        loss: str, function or keras.losses.Loss. As `compile` takes it; all others are not checked.
        name: str. The name of the learner's class.
    """
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        loss = "sparse_categorical_crossentropy"  # Keras finds out which one it is; all take these.
    elif not (isinstance(loss, str | keras.losses.Loss) or callable(loss)):
        return
    found = keras.losses.get(loss)
    targets = targets_of(found)
    if kind == "values" or targets == "values":
        return
    returns = "probabilities or scores" if kind.endswith("scores") else "logits"
    takes = "logits" if takes_logits(found) else "probabilities"
    if takes not in returns:
        raise ValueError(
            f"The predictions of this {name} are {returns}, but the loss {loss!r} takes {takes}: "
            "leave loss= out, or pass learner.default_loss()."
        )
    if (targets == "binary") != is_binary(kind):
        columns = "one column for two classes" if is_binary(kind) else "one column per class"
        raise ValueError(
            f"The predictions of this {name} have {columns}, which the loss {loss!r} does not "
            "take: leave loss= out, or pass learner.default_loss()."
        )


def is_binary(kind: str) -> bool:
    """Returns whether predictions of a kind have one column for two classes."""
    return kind in ("binary_logits", "binary_scores")


def n_classes(kind: str, n_outputs: int) -> int:
    """Returns how many classes predictions of a kind and width tell apart."""
    return 2 if is_binary(kind) else n_outputs


def by_class(outputs: Any, kind: str) -> tuple[Any, Literal["logits", "scores", "values"]]:
    """Gives predictions of two classes one column for each; all others stay as they are.

    Args:
        outputs: tensor or array `[…, n_outputs]`.
        kind: str. An `OutputKind`.

    Returns:
        The outputs `[…, n_way]`, and their kind: "logits", "scores" or "values".

    Example:

    >>> outputs, kind = by_class(keras.ops.array([[0.25]]), "binary_scores")
    >>> keras.ops.convert_to_numpy(outputs).tolist(), kind
    ([[0.75, 0.25]], 'scores')
    """
    if kind == "binary_logits":
        return keras.ops.concatenate([keras.ops.zeros_like(outputs), outputs], axis=-1), "logits"
    if kind == "binary_scores":
        return keras.ops.concatenate([1 - outputs, outputs], axis=-1), "scores"
    return outputs, kind  # type: ignore[return-value]


def _is_one_of(loss: Any, known: tuple[Any, ...]) -> bool:
    loss = loss.func if isinstance(loss, functools.partial) else loss
    classes = tuple(k for k in known if isinstance(k, type))
    return isinstance(loss, classes) or any(loss is k for k in known)
