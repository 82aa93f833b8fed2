"""Meta-trained learners by name, from a folder, or from an address.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tfmeta.zoo import find, list_presets

if TYPE_CHECKING:
    from tfmeta.learners import MetaLearner

__all__ = ["find", "from_preset", "list_presets"]


def from_preset(preset: str | os.PathLike[str], refresh: bool = False) -> MetaLearner:
    """Loads a meta-trained learner of any class.

    `MAML.from_preset(name)` and so on do the same, and check the class.

    Nothing of a preset is executed: the file is checked against its SHA-256 digest, and loaded in
    Keras's safe mode.

    Args:
        preset: A name (see `list_presets`); a folder that `save_to_preset` wrote; or the address of
            such a folder: `https://…`, `gs://bucket/…`, or `hf://owner/repository/…` on the Hugging
            Face Hub (needs the extra `tfmeta[hf]`). There, `hf://owner/repository@revision/…` names
            a branch, a tag or a commit.
        refresh: Whether to download again. Otherwise a download is kept in Keras's cache,
            `$KERAS_HOME` or `~/.keras`, and used from there ever after. Defaults to False.

    Returns:
        The learner, not compiled.

    Raises:
        ValueError: If there is no such preset, or it is truncated, altered, of another kind, or of
            a later version of tfmeta.

    Example:

    >>> import numpy as np
    >>> import tfmeta
    >>> learner = tfmeta.from_preset("maml_sinusoid")
    >>> x = np.linspace(-5, 5, 10, dtype="float32")[:, None]
    >>> adapted = learner.adapt(x, np.sin(x))
    >>> adapted.predict(np.array([[0.5]], "float32"), verbose=0).shape
    (1, 1)
    """
    from tfmeta.learners import MetaLearner

    return MetaLearner.from_preset(preset, refresh)
