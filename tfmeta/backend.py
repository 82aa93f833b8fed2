"""Makes sure that Keras runs on TensorFlow; importing this module checks it."""

from __future__ import annotations

import importlib
import os
import sys


def check_backend() -> None:
    """Raises an ImportError if Keras has another backend than TensorFlow.

    If Keras was not imported yet, this looks at the setting first, because Keras fails to import
    for a backend that is not installed.
    """
    name = os.environ.get("KERAS_BACKEND", "tensorflow")
    if "keras" in sys.modules or name == "tensorflow":
        try:
            name = importlib.import_module("keras").backend.backend()
        except ModuleNotFoundError as error:
            if error.name not in ("jax", "torch", "openvino"):
                raise
            name = error.name  # The backend that keras.json names.
    if name != "tensorflow":
        raise ImportError(
            f"tfmeta needs Keras's TensorFlow backend, but Keras is set to {name!r}: set the "
            "environment variable KERAS_BACKEND=tensorflow before Python starts, or unset it."
        )


check_backend()
