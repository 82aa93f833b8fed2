"""A servable version loaded from disk for queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from tfmeta.serving.errors import ServableError, as_servable_error
from tfmeta.serving.warmup import Request


class LoadedServable(NamedTuple):
    """The loaded signatures of a servable version.

    Attributes:
        folder: Path. The version's folder.
        signatures: dict of callables by name.
        compute_dtype: str. The dtype that the model's layers compute in.
    """

    folder: Path
    signatures: Mapping[str, Any]
    compute_dtype: str = "float32"

    @classmethod
    def load(cls, folder: Path, compute_dtype: str = "float32") -> LoadedServable:
        """Loads a version.

        Raises:
            ServableError: If it cannot be loaded.
        """
        verbosity = logging.get_verbosity()
        # TensorFlow warns that custom gradients are not loaded. A server needs no gradients.
        logging.set_verbosity(logging.ERROR)
        try:
            return cls(folder, tf.saved_model.load(str(folder)).signatures, compute_dtype)
        # The type of TensorFlow's error depends on which byte of which file is wrong.
        except Exception as error:
            raise ServableError(f"{folder} cannot be loaded: {error}. Export it again.") from error
        finally:
            logging.set_verbosity(verbosity)

    def answer(self, request: Request, situation: str = "a warmup request") -> dict[str, Any]:
        """Returns the answer to a request, as NumPy arrays by name.

        Args:
            request: Request.
            situation: str. What the signature fails on, for the error. Defaults to "a warmup
                request".

        Raises:
            ServableError: If the signature fails.
        """
        with as_servable_error(f"The signature {request.signature!r} fails on {situation}"):
            outputs = self.signatures[request.signature](
                **{name: tf.constant(x) for name, x in request.inputs.items()}
            )
            return {name: np.asarray(x) for name, x in outputs.items()}
