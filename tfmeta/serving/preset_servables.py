"""The servable that a preset's folder contains."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tfmeta.data.images import ImageFormat
from tfmeta.learners.meta_learner import MetaLearner
from tfmeta.networks import normalises_together
from tfmeta.preset_files import PRESET, SERVABLE, record_files
from tfmeta.serving.exporting import export
from tfmeta.versions import publish


def served_learner(learner: MetaLearner) -> MetaLearner:
    """Returns a learner in the mode of batch norm in which a preset's servable has it.

    A server wants answers that do not depend on the other queries of a request. So a transductive
    learner is served in the mode "support" with the same weights, and any other one as it is.

    Args:
        learner: MetaLearner.
    """
    mode: Any = getattr(learner, "batch_norm", None)
    if normalises_together(mode, learner):
        return learner.with_batch_norm("support")
    return learner


def renew_servable(
    preset_folder: str | os.PathLike[str],
    learner: MetaLearner,
    image_format: ImageFormat | None = None,
    example_shape: tuple[int, ...] | None = None,
) -> Path:
    """Exports a preset's learner as the only version of its servable.

    The version is exported elsewhere, checked, and moved to the preset's folder as a whole; then
    the older versions are deleted.

    Args:
        preset_folder: str or path. The preset's folder. Its name is the servable's name.
        learner: MetaLearner. The preset's learner. A transductive one is exported in the mode
            "support", which is the one that a server wants.
        image_format: ImageFormat or None. How images become examples. Defaults to None.
        example_shape: tuple of int or None. The shape of an example, if the learner does not tell
            it. Defaults to None.

    Returns:
        The folder of the new version.

    Raises:
        ServableError: If the servable fails a check; the preset's folder then stays as it was.
        ValueError: If an option is missing or does not fit.

    Example:

    >>> import tempfile, tfmeta
    >>> learner = tfmeta.from_preset("maml_sinusoid")
    >>> folder = Path(tempfile.mkdtemp(), "waves")
    >>> learner.save_to_preset(folder)
    >>> renew_servable(folder, learner) == tfmeta.serving.servable_of(folder)
    True
    """
    preset_folder = Path(preset_folder).expanduser().absolute()
    with tempfile.TemporaryDirectory() as elsewhere:
        exported = export(
            served_learner(learner),
            Path(elsewhere) / preset_folder.name,
            image_format=image_format,
            example_shape=example_shape,
        )

        def write(version: Path) -> None:
            shutil.copytree(exported, version, dirs_exist_ok=True)

        version = publish(preset_folder / SERVABLE, write, keep=1)
    if (preset_folder / PRESET).is_file():
        record_files(preset_folder)
    return version
