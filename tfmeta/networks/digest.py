"""A digest of a network, by which a file notices that it was made by another one."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any

import keras

from tfmeta import keras_internals

# Where the configuration of a functional model has names of layers, which Keras makes up anew.
REFERENCES = ("name", "keras_history", "input_layers", "output_layers")
# What changes no output outside of training.
IGNORED = ("trainable", "compile_config")
LIBRARIES = ("keras", "keras_hub", "tfmeta")


class NoDigestError(ValueError):
    """A network whose code cannot be read, so that nobody can tell whether it changed."""


def network_digest(network: keras.Model) -> str:
    """Returns a digest of what a network computes with: its configuration, weights and code.

    Names of layers and the state of random numbers do not count, nor does what is trainable. The
    code of your own layers counts, but not that of functions that these call.

    Args:
        network: keras.Model. A built model.

    Returns:
        str. A SHA-256 digest, in hexadecimal.

    Raises:
        NoDigestError: If a layer is of a class without a configuration or without source code.
    """
    digest = hashlib.sha256()
    try:
        config = keras.saving.serialize_keras_object(network)
        text = json.dumps(_without_names(config, {}), sort_keys=True)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NoDigestError(
            f"{network.name!r} has no configuration: {' '.join(str(error).split())}"
        ) from error
    digest.update(text.encode())
    for kind in dict.fromkeys(type(layer) for layer in keras_internals.layers_of(network)):
        if kind.__module__.partition(".")[0] not in LIBRARIES:
            digest.update(_source(kind).encode())
    for variable in network.variables:
        if keras_internals.is_seed_state(variable):
            continue
        value = keras.ops.convert_to_numpy(variable)
        digest.update(f"{value.dtype} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError) as error:
        raise NoDigestError(f"the source code of {kind.__name__} cannot be read") from error


def _without_names(config: Any, numbers: dict[str, int]) -> Any:
    """Returns a configuration in which layers are numbered instead of named."""
    if isinstance(config, list | tuple):
        return [_without_names(part, numbers) for part in config]
    if not isinstance(config, dict):
        return config
    plain = {}
    for key, value in config.items():
        if key not in IGNORED:
            number = _numbered if key in REFERENCES else _without_names
            plain[key] = number(value, numbers)
    return plain


def _numbered(reference: Any, numbers: dict[str, int]) -> Any:
    if isinstance(reference, list | tuple):
        return [_numbered(part, numbers) for part in reference]
    if isinstance(reference, str):
        return numbers.setdefault(reference, len(numbers))
    return reference
