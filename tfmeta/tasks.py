"""A folder with a learned task: `tfmeta adapt` writes it, `tfmeta predict` and `export` read it.

A task folder has two files:

    model.keras    the adapted model, as Keras saves it
    task.json      the names of the classes, and how examples are prepared
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfmeta import data
from tfmeta.data import ImageFormat
from tfmeta.data.inputs import image_files, read_csv, read_images
from tfmeta.files import replacing, write_json
from tfmeta.learners import MetaLearner
from tfmeta.learners.output_kinds import by_class

MODEL, TASK = "model.keras", "task.json"

# Images per update of the progress bar.
CHUNK = 32


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
        folder = Path(folder)
        with replacing(folder / MODEL) as temporary:
            self.model.save(temporary)
            # A new model must not be read with the class names of the old one.
            (folder / TASK).unlink(missing_ok=True)
        about = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del about["model"]
        if self.image_format is not None:
            about["image_format"] = dataclasses.asdict(self.image_format)
        write_json(folder / TASK, about)

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
        try:
            about = _checked(json.loads((folder / TASK).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{folder / TASK} is broken, or no task of tfmeta: {error}") from error
        if not (folder / MODEL).is_file():
            raise ValueError(f"{folder} lacks its {MODEL}: adapt again.")
        return cls(model=keras.models.load_model(folder / MODEL), **about)

    # === Predictions ===

    def predict(
        self, files: Sequence[str | os.PathLike[str]], verbose: bool = False
    ) -> tuple[list[str], np.ndarray]:
        """Predicts the examples in files.

        All of them are predicted in one batch, because a transductive model normalises the queries
        of a batch together.

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
        names, x = self._read([Path(file) for file in files], verbose)
        return names, self.outputs(x)

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
            return np.asarray(keras.ops.softmax(outputs))
        return outputs

    def _read(self, paths: list[Path], verbose: bool) -> tuple[list[str], np.ndarray]:
        if not paths:
            raise ValueError("Which examples? Give images, folders of images, or CSV files.")
        if all(path.suffix.lower() == ".csv" for path in paths):
            tables = [_examples(read_csv(path), self.example_shape, path) for path in paths]
            names = [
                f"{path}:{line + 1}"
                for path, table in zip(paths, tables, strict=True)
                for line in range(len(table))
            ]
            return names, np.concatenate(tables)
        if self.image_format is None:
            raise ValueError("This task's learner was not trained on image files: give a CSV file.")
        files = [file for path in paths for file in image_files(path)]
        return [str(file) for file in files], _images(files, self.image_format, verbose)


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
        class_names = list(data.load(path).class_names)
        files = [image_files(path / name) for name in class_names]
        x = _images([file for images in files for file in images], image_format, verbose)
        y: np.ndarray = np.repeat(np.arange(len(files)), [len(images) for images in files])
    else:
        table = read_csv(path)
        x, y = _examples(table[:, :-1], shape, path), table[:, -1]
        if learner.output_kind == "values":
            y = y[:, None]
        else:
            labels, y = np.unique(y, return_inverse=True)
            class_names = [f"{label:.8g}" for label in labels]
    model = learner.adapt(x, y, class_names)
    return Task(
        model,
        class_names,
        learner.output_kind,
        shape,
        image_format,
        source=source,
        support=str(support),
        n_examples=len(x),
    )


def _checked(content: Any) -> dict[str, Any]:
    """Returns the fields of a `task.json`. Raises a ValueError or TypeError if one is wrong."""
    needed = ("class_names", "output_kind", "example_shape", "image_format")
    missing = [name for name in needed if name not in content]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}.")
    about = {f.name: content[f.name] for f in dataclasses.fields(Task) if f.name in content}
    if about["example_shape"] is not None:
        about["example_shape"] = tuple(about["example_shape"])
    if about["image_format"] is not None:
        about["image_format"] = ImageFormat(**about["image_format"])
    return about


def _examples(table: np.ndarray, shape: tuple[int, ...] | None, path: Path) -> np.ndarray:
    """Returns the examples `[N, *shape]` of a table `[N, columns]`."""
    if shape is None:
        return table
    if table.shape[1] != np.prod(shape):
        raise ValueError(
            f"{path}: an example has {table.shape[1]} numbers, but the learner was trained on "
            f"examples of shape {shape}."
        )
    return table.reshape(-1, *shape)


def _images(files: Sequence[Path], image_format: ImageFormat, verbose: bool) -> np.ndarray:
    """Reads images `[N, height, width, channels]`, a chunk at a time for the progress bar."""
    from rich.console import Console
    from rich.progress import track

    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    console = Console(file=sys.stderr)
    bar = track(chunks, "Reading images", console=console, transient=True, disable=not verbose)
    return np.concatenate([read_images(chunk, image_format) for chunk in bar])
