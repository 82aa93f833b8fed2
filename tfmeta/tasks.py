"""A folder with a learned task: `tfmeta adapt` writes it, `tfmeta predict` and `export` read it."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf

from tfmeta import task_files
from tfmeta.data import ImageFormat
from tfmeta.data.decoding import printable
from tfmeta.data.image_folders import find_classes, image_files
from tfmeta.data.image_reader import read_files
from tfmeta.data.tables import read_labelled, read_numbers, read_table
from tfmeta.learners import MetaLearner
from tfmeta.learners.adapted_model import AdaptedModel
from tfmeta.learners.output_kinds import OutputKind, by_class
from tfmeta.networks import normalises_together
from tfmeta.task_files import TASK

# Examples that are predicted at once, unless all are normalised together.
CHUNK = 128


@dataclasses.dataclass(frozen=True)
class Task:
    """A learner's model of one task, with all that is needed to predict from files.

    Attributes:
        model: keras.Model. The adapted model, from `[N, *x]` to `[N, n_way]` or `[N, *y]`.
        class_names: list of str, or None for regression. The names of the classes 0, 1, …
        output_kind: str. What the model returns: `"logits"`, `"scores"`, one column of these for
            two classes (`"binary_logits"`, `"binary_scores"`), or `"values"`.
        example_shape: tuple of int, or None if unknown. The shape of one example.
        image_format: ImageFormat, or None if examples are not image files. How image files become
            examples.
        source: str. The run or preset whose learner was adapted. Defaults to `""`.
        support: str. The folder or file that held the support set. Defaults to `""`.
        n_examples: int, or None if unknown. The size of the support set. Defaults to None.

    Example:

    >>> import tempfile
    >>> import tfmeta
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "support.csv").write_text("-1,0.5\\n0,1\\n2,0.25\\n")
    >>> task = learn(tfmeta.from_preset("maml_sinusoid"), folder / "support.csv")
    >>> task.save(folder / "task")
    >>> _ = (folder / "queries.csv").write_text("0.5\\n1.5\\n")
    >>> names, outputs = Task.load(folder / "task").predict([folder / "queries.csv"])
    >>> [name.rsplit(":")[-1] for name in names], outputs.shape
    (['1', '2'], (2, 1))
    """

    model: keras.Model
    class_names: list[str] | None
    output_kind: str
    example_shape: tuple[int, ...] | None
    image_format: ImageFormat | None
    source: str = ""
    support: str = ""
    n_examples: int | None = None

    # === Files ===

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes the task folder; replaces an earlier task in it.

        Args:
            folder: str or path. The folder to write.
        """
        about = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del about["model"]
        if self.image_format is not None:
            about["image_format"] = dataclasses.asdict(self.image_format)
        task_files.write(Path(folder), self.model, about, _checked)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Task:
        """Reads a task folder.

        Args:
            folder: str or path. A folder that `save` or `tfmeta adapt` wrote.

        Returns:
            The task.

        Raises:
            ValueError: If the folder is no task folder, or one of its files is broken.
        """
        folder = Path(folder)
        if not is_task(folder):
            raise ValueError(f"{folder} is no task folder: make one with `tfmeta adapt`.")
        model, about = task_files.read(folder, _checked)
        return cls(model=model, **about)

    # === Predictions ===

    @property
    def is_transductive(self) -> bool:
        """Whether a prediction depends on the other examples that are predicted with it."""
        learner = self.model.learner if isinstance(self.model, AdaptedModel) else self.model
        mode: Any = getattr(learner, "batch_norm", None)
        return normalises_together(mode, learner)

    def predict(
        self, files: Sequence[str | os.PathLike[str]], verbose: bool = False
    ) -> tuple[list[str], np.ndarray]:
        """Predicts the examples in files.

        Args:
            files: Sequence of str or path. CSV files of numbers without a header, one example per
                line; or else images and folders of images.
            verbose: bool. Whether to show a progress bar on stderr. Defaults to False.

        Returns:
            The examples' names, `[N]`: the file, for a CSV file with the number of the line.
            The outputs, `[N, n_classes]` probabilities (or scores), or `[N, *y]` values.

        Raises:
            ValueError: If a file is missing or broken, or its examples do not fit the model.
        """
        names, outputs = zip(*self.predict_in_parts(files, verbose), strict=True)
        return [name for part in names for name in part], np.concatenate(outputs)

    def predict_in_parts(
        self, files: Sequence[str | os.PathLike[str]], verbose: bool = False
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Predicts the examples in files, some at a time, so that memory does not grow with them.

        The exception is a transductive model, which normalises all examples of a call together:
        all of them are one part.

        Args:
            files: As in `predict`.
            verbose: As in `predict`.

        Yields:
            The names and outputs of some examples, as `predict` returns them.

        Raises:
            ValueError: As in `predict`; for a file in a later part, when that part is read.
        """
        parts = self._read([Path(file) for file in files], verbose)
        if self.is_transductive:
            all_names, all_x = zip(*parts, strict=True)
            parts = [([name for part in all_names for name in part], np.concatenate(all_x))]
        for names, x in parts:
            yield names, self.outputs(x)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Predicts examples.

        Args:
            x: `[N, *example_shape]` float.

        Returns:
            `[N, n_classes]` probabilities, or scores if `output_kind` is `"scores"` or
            `"binary_scores"`; or `[N, *y]` values.

        Raises:
            ValueError: If a prediction is not finite.
        """
        with warnings.catch_warnings():
            # The command line says by itself that a lone query is normalised by itself.
            warnings.simplefilter("ignore", UserWarning)
            outputs = np.asarray(self.model.predict(x, batch_size=len(x), verbose=0))
        finite = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"The predictions of {np.count_nonzero(~finite)} of {len(finite)} examples are not "
                f"finite, first that of example {np.argmin(finite) + 1}: adapt again, with a lower "
                "inner_learning_rate or with numbers around 1."
            )
        if self.class_names is None:
            return outputs
        outputs, kind = by_class(outputs, self.output_kind)
        outputs = np.asarray(outputs)
        # The network may have more outputs than the task has classes.
        outputs = outputs[:, : len(self.class_names)]
        if kind == "logits":
            # Keras's own would warn of a task with one class.
            return np.asarray(tf.nn.softmax(outputs))
        return outputs

    def _read(self, paths: list[Path], verbose: bool) -> Iterable[tuple[list[str], np.ndarray]]:
        """Returns the names and examples of files, in parts."""
        if not paths:
            raise ValueError("Which examples? Give images, folders of images, or CSV files.")
        if all(path.suffix.lower() == ".csv" for path in paths):
            for path in paths:
                if not path.is_file():
                    raise ValueError(f"No such file or folder: {printable(str(path))}.")
            return self._read_tables(paths)
        if self.image_format is None:
            raise ValueError("This task's learner was not trained on image files: give a CSV file.")
        files = [file for path in paths for file in image_files(path)]
        return read_files(files, self.image_format, n_at_once=CHUNK, verbose=verbose)

    def _read_tables(self, paths: list[Path]) -> Iterator[tuple[list[str], np.ndarray]]:
        for path in paths:
            for lines, table in read_numbers(path):
                x = _examples(table, self.example_shape, self.image_format, path)
                for start in range(0, len(x), CHUNK):
                    part = slice(start, start + CHUNK)
                    yield [f"{path}:{line}" for line in lines[part]], x[part]


def is_task(folder: str | os.PathLike[str]) -> bool:
    """Tells whether a folder is a task folder.

    Args:
        folder: str or path. Any path.
    """
    return (Path(folder) / TASK).is_file()


def learn(
    learner: MetaLearner,
    support: str | os.PathLike[str],
    *,
    example_shape: Sequence[int] | None = None,
    image_format: ImageFormat | None = None,
    source: str = "",
    verbose: bool = False,
) -> Task:
    """Adapts a learner to the task in a user's files.

    Args:
        learner: MetaLearner. The learner to adapt; it stays as it is.
        support: str or path. The support set: a folder with one sub-folder of images per class; or
            a CSV file without a header, one example per line, its last column the label or target.
        example_shape: Sequence of int. The shape of one example; the columns of a CSV file are
            brought to it. Defaults to None: as they are.
        image_format: ImageFormat. How image files become examples. Defaults to None: `support` must
            be a CSV file then.
        source: str. The run or preset of the learner, as a note in the task. Defaults to `""`.
        verbose: bool. Whether to show a progress bar on stderr. Defaults to False.

    Returns:
        The task.

    Raises:
        ValueError: If the support set is missing or broken, or does not fit the learner.
    """
    path = Path(support)
    shape = None if example_shape is None else tuple(example_shape)
    class_names: list[str] | None = None
    if path.is_dir():
        if image_format is None:
            raise ValueError(
                f"{source or 'The learner'} was not trained on image files: give a CSV file as "
                "the support set, or save the preset with image_format=."
            )
        classes, skipped = find_classes(path)
        skipped.warn()
        class_names = list(classes)
        files = [file for images in classes.values() for file in images]
        parts = read_files(files, image_format, n_at_once=CHUNK, verbose=verbose)
        x = np.concatenate([pixels for _, pixels in parts])
        y: np.ndarray = np.repeat(np.arange(len(classes)), [len(f) for f in classes.values()])
    elif learner.output_kind == "values":
        table = read_table(path)
        x, y = _examples(table[:, :-1], shape, image_format, path), table[:, -1:]
    else:
        table, y, class_names = read_labelled(path)
        x = _examples(table, shape, image_format, path)
    model = learner.adapt(x, y, class_names)
    return Task(
        model,
        class_names,
        learner.output_kind,
        shape,
        image_format,
        source=source,
        support=printable(str(support)),
        n_examples=len(x),
    )


def _checked(content: Any) -> dict[str, Any]:
    """Returns the fields of a `task.json`. Raises a ValueError or TypeError if one is wrong."""
    needed = ("class_names", "output_kind", "example_shape", "image_format")
    missing = [name for name in needed if name not in content]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}.")
    about = {f.name: content[f.name] for f in dataclasses.fields(Task) if f.name in content}
    names, kind, shape = (about[key] for key in needed[:3])
    if names is not None and not (
        isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"class_names must be a list of names, or null; got {names!r}.")
    if kind not in get_args(OutputKind):
        kinds = ", ".join(get_args(OutputKind))
        raise ValueError(f"output_kind must be one of {kinds}; got {kind!r}.")
    if shape is not None:
        if not (isinstance(shape, list) and all(isinstance(size, int) for size in shape)):
            raise ValueError(f"example_shape must be a list of integers, or null; got {shape!r}.")
        about["example_shape"] = tuple(shape)
    if not isinstance(about["image_format"], dict | None):
        raise ValueError(f"image_format must be a mapping, or null; got {about['image_format']!r}.")
    if about["image_format"] is not None:
        about["image_format"] = ImageFormat(**about["image_format"])
    return about


def _examples(
    table: np.ndarray, shape: tuple[int, ...] | None, image_format: ImageFormat | None, path: Path
) -> np.ndarray:
    """Returns the examples `[N, *shape]` of a table `[N, columns]`."""
    if image_format is not None and (table.min() < 0 or table.max() > 1):
        raise ValueError(
            f"{path}: the learner was trained on images, whose values are from 0 to 1, but this "
            f"file has values from {table.min():.6g} to {table.max():.6g}: divide pixels by 255."
        )
    if shape is None:
        return table
    if table.shape[1] != np.prod(shape):
        raise ValueError(
            f"{path}: an example has {table.shape[1]} numbers, but the learner was trained on "
            f"examples of shape {shape}."
        )
    return table.reshape(-1, *shape)
