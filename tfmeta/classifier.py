"""A meta-learned classifier with scikit-learn's interface."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np

from tfmeta import preset_files, presets, zoo
from tfmeta.data import ImageFormat
from tfmeta.data.image_reader import read_files
from tfmeta.learners import MetaLearner
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.task_inputs import check_no_pixels, takes_integers
from tfmeta.networks import LAMBDA, BatchNorm, unregistered
from tfmeta.tasks import CHUNK, Task

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.preprocessing import LabelEncoder
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        check_array,
        check_consistent_length,
        check_is_fitted,
        validate_data,
    )
except ImportError as error:
    raise ImportError(
        'tfmeta.FewShotClassifier needs scikit-learn 1.6 or later: pip install "tfmeta[sklearn]".'
    ) from error


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn that learns from a handful of examples.

    `fit` adapts a meta-trained learner to the examples, as `tfmeta adapt` does; the learner itself
    stays as it is. Clones of this estimator share it, and a preset is loaded once, so that a
    cross-validation neither copies weights nor compiles functions again.

    Args:
        learner: MetaLearner, str or path. The learner of classes, or its preset: a name, a folder
            or an address (see `tfmeta.from_preset`).
        batch_norm: str or None. The mode of batch norm; see `tfmeta.MAML`. In the mode
            `"transductive"`, with which most presets come, a prediction depends on the other rows
            of the call: pass `"support"` if it must not. Defaults to None: the learner's own.
        image_format: ImageFormat or None. How image files become examples. Defaults to None: as
            the preset says; a learner that is passed itself takes no files then.

    Attributes:
        classes_: array `[n_classes]`. The labels, sorted: the columns of `predict_proba`.
        n_features_in_: int. The columns of X in `fit`, if X was a table `[n, columns]`.
        feature_names_in_: array of str. The names of these columns, if they all have one.
        task_: Task. The learned task. `task_.save(folder)` writes it for `tfmeta predict`.

    Example:

    >>> import numpy as np
    >>> classifier = FewShotClassifier("prototypical_network_omniglot_5w1s", batch_norm="support")
    >>> images = np.zeros((4, 28, 28, 1), "float32")
    >>> images[:2, 4:24, 13:15] = images[2:, 13:15, 4:24] = 1
    >>> classifier.fit(images[::2], ["upright", "flat"]).predict(images).tolist()
    ['upright', 'upright', 'flat', 'flat']
    """

    def __init__(
        self,
        learner: MetaLearner | str | os.PathLike[str],
        *,
        batch_norm: BatchNorm | None = None,
        image_format: ImageFormat | None = None,
    ) -> None:
        self.learner = learner
        self.batch_norm = batch_norm
        self.image_format = image_format

    def __sklearn_clone__(self) -> Self:
        """Makes an unfitted copy that shares the learner, which `fit` does not change."""
        return type(self)(**self.get_params(deep=False))

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a pickle holds. Keras makes a file of the learner for it.

        Raises:
            TypeError: If Keras could not load this file again.
        """
        if isinstance(self.learner, MetaLearner):
            names = [name for name in unregistered(self.learner) if name != LAMBDA]
            if names:
                raise TypeError(
                    f"This FewShotClassifier does not pickle, for Keras cannot find "
                    f"{', '.join(names)} by name: decorate each with "
                    "@keras.saving.register_keras_serializable()."
                )
        state: dict[str, Any] = super().__getstate__()
        return state

    def fit(self, X: Any, y: Any) -> Self:
        """Adapts the learner to labelled examples.

        Args:
            X: array `[n, *x]` of numbers, pixels as floats from 0 to 1; or a table `[n, columns]`
                whose rows are such examples, flat; or a list of n image files.
            y: array `[n]`. The labels: text or integers.

        Returns:
            This estimator.

        Raises:
            ValueError: If the learner is for regression or tells fewer classes apart, the examples
                do not fit it, a file cannot be read, or as `MetaLearner.adapt` does.
        """
        learner, image_format = self._open_learner()
        for name in ("n_features_in_", "feature_names_in_"):  # Those of an earlier table.
            self.__dict__.pop(name, None)
        y = self._checked_labels(y)
        if _are_files(X):
            check_consistent_length(X, y)
            x = _read(X, image_format)
        else:
            x = self._checked(X, learner.input_network(), reset=True)
            check_consistent_length(x, y)
            x = _as_examples(x, learner.example_shape, image_format)
        _check_shape(learner, x)
        encoder = LabelEncoder()
        labels = encoder.fit_transform(y)
        classes = encoder.classes_
        most = learner.n_classes
        if most is not None and len(classes) > most:
            raise ValueError(
                f"This {type(learner).__name__} tells at most {most} classes apart, but y has "
                f"{len(classes)}: take fewer, or a metric learner, which takes any number."
            )
        self.task_ = Task(
            learner.adapt(x, labels),
            [str(label) for label in classes],
            learner.output_kind,
            tuple(x.shape[1:]),
            image_format,
            n_examples=len(x),
        )
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predicts the probabilities of the classes.

        Args:
            X: As in `fit`; files and arrays may be mixed between calls.

        Returns:
            `[n, n_classes]`, each row with the sum 1, in the order of `classes_`. The scores of a
            learner without probabilities, such as `RelationNetwork`, are divided by their sum.

        Raises:
            ValueError: If the examples are not like those of `fit`, a file cannot be read, or a
                prediction is not finite.
        """
        check_is_fitted(self)
        task = self.task_
        if _are_files(X):
            x = _read(X, task.image_format)
        else:
            model = task.model
            network = model.learner.input_network() if isinstance(model, AdaptedModel) else model
            x = self._checked(X, network, reset=False)
            x = _as_examples(x, task.example_shape, task.image_format)
        if x.shape[1:] != task.example_shape:
            raise ValueError(
                f"X must have examples of the shape {task.example_shape}, as in fit; got "
                f"{x.shape[1:]}."
            )
        if task.is_transductive and len(x) == 1:
            warnings.warn(
                'With batch_norm="transductive" a prediction depends on the other examples of the '
                'call, and this one is alone: pass all together, or use batch_norm="support".',
                stacklevel=2,
            )
        size = len(x) if task.is_transductive else CHUNK
        parts = [task.outputs(x[start : start + size]) for start in range(0, len(x), size)]
        scores = np.concatenate(parts).astype(np.float64)
        sums = scores.sum(axis=1, keepdims=True)
        # All scores may be 0: no class is more probable than another.
        return np.divide(
            scores, sums, out=np.full_like(scores, 1 / scores.shape[1]), where=sums > 0
        )

    def predict(self, X: Any) -> np.ndarray:
        """Predicts the classes of examples.

        Args:
            X: As in `predict_proba`.

        Returns:
            array `[n]`. The most probable label of each example.

        Raises:
            ValueError: As in `predict_proba`.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _open_learner(self) -> tuple[MetaLearner, ImageFormat | None]:
        """Returns the learner and its image format. Raises a ValueError if it is no classifier."""
        learner, image_format = self.learner, self.image_format
        if isinstance(learner, str | os.PathLike):
            folder = zoo.find(learner)
            about = preset_files.read(folder)
            learner = _preset(folder, about.sha256, self.batch_norm)
            image_format = image_format or about.image_format
        elif isinstance(learner, MetaLearner):
            learner = _in_mode(learner, self.batch_norm)
        else:
            raise TypeError(
                "learner must be a learner of tfmeta, or the name, folder or address of a preset; "
                f"got {learner!r}."
            )
        if learner.output_kind == "values":
            raise ValueError(
                f"This {type(learner).__name__} is for regression, for its inner loss takes "
                "values: choose a learner of classes."
            )
        return learner, image_format

    def _checked_labels(self, y: Any) -> np.ndarray:
        """Returns labels as an array `[n]`, after the checks of scikit-learn."""
        y = validate_data(self, y=y)
        check_classification_targets(y)
        return y

    def _checked(self, examples: Any, network: Any, reset: bool) -> np.ndarray:
        """Checks arrays as scikit-learn does, and returns what the network takes.

        Args:
            examples: array-like. The X of `fit` or of a prediction.
            network: keras.Model. What the examples are for.
            reset: bool. Whether to note the columns of a table (in `fit`), or to compare them.
        """
        x = check_array(examples, allow_nd=True, estimator=self, input_name="X")
        if x.ndim == 2:
            validate_data(self, examples, reset=reset, skip_check_array=True)
        check_no_pixels("X", x.dtype, network)
        if takes_integers(network):
            return x
        with np.errstate(over="ignore"):  # Infinities are refused.
            floats: np.ndarray = check_array(x, dtype=np.float32, allow_nd=True, input_name="X")
        return floats


@functools.lru_cache(maxsize=4)
def _preset(folder: Path, sha256: str, batch_norm: BatchNorm | None) -> MetaLearner:
    """Loads a preset, once for all fits of a search. Nothing else has the learner.

    Args:
        folder: Path. The preset's folder.
        sha256: str. The digest of its learner, which tells when it was replaced.
        batch_norm: str or None. The mode of batch norm; None for the learner's own.
    """
    return _in_mode(presets.from_preset(folder), batch_norm)


def _in_mode(learner: MetaLearner, batch_norm: BatchNorm | None) -> MetaLearner:
    """Returns a learner in a mode of batch norm: the learner itself, if that is its own."""
    if batch_norm is None or getattr(learner, "batch_norm", None) == batch_norm:
        return learner
    return learner.with_batch_norm(batch_norm)


def _are_files(examples: Any) -> bool:
    """Tells whether all examples are text or paths."""
    if isinstance(examples, str | os.PathLike):
        raise ValueError(f"X must be a list of files, or an array; got {str(examples)!r} alone.")
    if hasattr(examples, "dtype"):
        if examples.ndim != 1 or examples.dtype.kind in "biufc":
            return False
    elif not isinstance(examples, list | tuple):
        return False
    return len(examples) > 0 and all(isinstance(file, str | os.PathLike) for file in examples)


def _read(files: Any, image_format: ImageFormat | None) -> np.ndarray:
    """Reads image files: float32 `[n, height, width, channels]` in [0, 1]."""
    if image_format is None:
        raise ValueError(
            "X has files, but how images become examples is not known: pass image_format=, or a "
            "preset that was trained on images."
        )
    parts = read_files([Path(file) for file in files], image_format, n_at_once=CHUNK)
    return np.concatenate([pixels for _, pixels in parts])


def _check_shape(learner: MetaLearner, x: np.ndarray) -> None:
    """Raises a ValueError for examples that the learner's network does not take."""
    shape = getattr(learner.input_network(), "input_shape", None)
    if isinstance(shape, list):  # CAVIA's network takes a context, too.
        shape = shape[0]
    if not isinstance(shape, tuple):
        return
    sizes = zip(shape[1:], x.shape[1:], strict=False)
    if len(shape) != x.ndim or any(size not in (None, found) for size, found in sizes):
        raise ValueError(
            f"This {type(learner).__name__} takes examples of the shape {shape[1:]}; got "
            f"{x.shape[1:]}."
        )


def _as_examples(
    x: np.ndarray, shape: tuple[int, ...] | None, image_format: ImageFormat | None
) -> np.ndarray:
    """Gives flat examples their shape, and checks that pixels are from 0 to 1."""
    if image_format is not None and (x.min() < 0 or x.max() > 1):
        raise ValueError(
            "The learner was trained on images, whose values are from 0 to 1, but X has values "
            f"from {x.min():.6g} to {x.max():.6g}: divide pixels by 255."
        )
    if x.ndim > 2 or shape is None or len(shape) == 1:
        return x
    if x.shape[1] != np.prod(shape):
        raise ValueError(
            f"A row of X has {x.shape[1]} numbers, but the learner takes examples of the shape "
            f"{shape}."
        )
    return x.reshape(-1, *shape)
