"""Facts about a learner from the files of its run or preset, read without TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfmeta.archives import read_config
from tfmeta.cli.results import name_of, read_evaluation, with_unit
from tfmeta.cli.sources import RUN_DETAILS, Source, read_json, recipe_values
from tfmeta.report.texts import in_words

# The most names of classes that are shown of a split.
MOST_NAMES = 40


@dataclass(frozen=True)
class Facts:
    """Facts about a learner.

    Attributes:
        name: str. The name of its recipe, or of its folder.
        source: Source. Where it is.
        learner: str. The name of its class.
        batch_norm: str. The mode of batch norm; None if the learner knows no modes.
        options: dict. The plain values of its configuration, without the mode of batch norm.
        takes_any_n_way: bool. Whether it tells any number of classes apart, as metric learners do.
        about: dict. The content of `preset.json`, or of a run's `run.json` and `recipe.yaml`.
        evaluation: dict. The content of `evaluation.json`; None without one.
    """

    name: str
    source: Source
    learner: str
    batch_norm: str | None
    options: dict[str, Any]
    takes_any_n_way: bool
    about: dict[str, Any]
    evaluation: dict[str, Any] | None

    @classmethod
    def read(cls, source: Source) -> Facts:
        """Reads the facts.

        Args:
            source: Source. What `locate` returned.

        Raises:
            ValueError: If a file is broken.
        """
        about = _about(source)
        try:
            content = read_config(source.learner_file)
            config, learner = content["config"], content["class_name"]
        except (KeyError, ValueError) as error:
            raise ValueError(f"{source.learner_file} is broken, or no learner: {error}") from error
        recipe = about["recipe"]
        folder = source.folder.absolute().name
        return cls(
            name=recipe["name"] if source.is_run else folder,
            source=source,
            learner=learner,
            batch_norm=config.get("batch_norm"),
            options={
                name: value
                for name, value in config.items()
                if name not in ("name", "trainable", "dtype", "batch_norm")
                and not _is_object(value)
            },
            takes_any_n_way="encoder" in config and "head" not in config,
            about=about,
            evaluation=read_evaluation(source.folder),
        )

    @property
    def examples(self) -> str:
        """The shape of one example, as in "28×28×1"."""
        shape = self.about["example_shape"]
        return "?" if shape is None else "×".join(map(str, shape))

    @property
    def ways(self) -> str:
        """The number of classes that the learner tells apart."""
        if self.takes_any_n_way:
            return "any"
        recipe = self.about["recipe"]
        if recipe is None:
            return "?"
        return in_words(recipe["episodes"].get("n_way", "–"))

    @property
    def classes(self) -> dict[str, str]:
        """The names of a run's classes by split; empty for regression, and where not recorded."""
        splits = self.about.get("classes") or {"test": self.about.get("test_classes")}
        return {
            split: f"{len(names)}: {', '.join(names[:MOST_NAMES])}"
            + (f" … (all in {RUN_DETAILS})" if len(names) > MOST_NAMES else "")
            for split, names in splits.items()
            if names is not None
        }

    @property
    def result(self) -> str:
        """The result in the recipe's own setting."""
        if self.evaluation is None:
            return "–"
        numbers = with_unit(
            self.evaluation["mean"], self.evaluation["ci95"], self.evaluation["metric"]
        )
        return f"{numbers} ({name_of(self.evaluation)})"

    @property
    def size(self) -> str:
        """The size of the learner's file."""
        size = self.source.learner_file.stat().st_size
        return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"

    @property
    def servable(self) -> Path | None:
        """The folder of the preset's servable; None without one."""
        from tfmeta.preset_files import SERVABLE

        folder = self.source.folder / SERVABLE
        return folder if not self.source.is_run and folder.is_dir() else None


def _about(source: Source) -> dict[str, Any]:
    if source.is_run:
        details = read_json(source.folder / RUN_DETAILS)
        if missing := {"example_shape", "image_format", "versions"} - details.keys():
            raise ValueError(
                f"{source.folder / RUN_DETAILS} is broken: it lacks {sorted(missing)}."
            )
        recipe = recipe_values(source)
        return {**details, "recipe": recipe, "tfmeta": details["versions"].get("tfmeta")}
    from tfmeta.preset_files import read_values

    return read_values(source.folder)


def _is_object(value: Any) -> bool:
    """Tells whether a value of a configuration is a serialised object, such as a network."""
    return isinstance(value, dict) and "class_name" in value
