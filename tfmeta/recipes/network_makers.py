"""Makes the base network of a recipe."""

from __future__ import annotations

import copy
import importlib
import pkgutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tfmeta import backbones
from tfmeta.archives import load_model
from tfmeta.files import sha256_of
from tfmeta.recipes.networks import FUNCTION, SavedNetwork, kind_of
from tfmeta.recipes.options import Named


def _efficientnet_lite0(
    n_outputs: int | None, input_shape: tuple[int, ...], **options: Any
) -> keras.Model:
    if n_outputs is not None:
        raise ValueError(
            "efficientnet_lite0 is an encoder, but this learner needs a network with outputs for "
            "the classes: choose conv4, or a learner that takes an encoder, such as simple_shot."
        )
    return backbones.pretrained("efficientnet_lite0", input_shape=input_shape, **options)


def _identity(n_outputs: int | None, input_shape: tuple[int, ...]) -> keras.Model:
    if n_outputs is not None:
        raise ValueError(
            "identity is an encoder, but this learner needs a network with outputs for the "
            "classes: choose linear or mlp, or a learner that takes an encoder, such as leo."
        )
    return backbones.identity(input_shape)


# Makes a network of the number of outputs (None for features), the example shape and options.
NETWORKS: dict[str, Callable[..., keras.Model]] = {
    "conv4": backbones.conv4,
    "efficientnet_lite0": _efficientnet_lite0,
    "film_conv4": backbones.film_conv4,
    "identity": _identity,
    "linear": backbones.linear,
    "mlp": backbones.mlp,
    "relation_encoder": lambda n_outputs, input_shape, **options: backbones.relation_encoder(
        input_shape, **options
    ),
}


def make_network(
    network: Named, n_outputs: int | None, example_shape: tuple[int, ...]
) -> keras.Model:
    """Makes the network of a recipe's section. Runs the user's code if it is `module:function`.

    Args:
        network: Named. The section.
        n_outputs: int or None. Number of outputs; None for features.
        example_shape: tuple of int. Shape of one example.

    Returns:
        The network, built.

    Raises:
        ValueError: If there is no such module, function or file, or an option does not fit.
    """
    if isinstance(network, SavedNetwork):
        return _loaded(network, n_outputs, example_shape)
    options = copy.deepcopy(network.given())
    name = options.pop("name")
    if kind_of(name) != FUNCTION:
        return NETWORKS[name](n_outputs, input_shape=example_shape, **options)
    function = _imported(name)
    try:
        made = function(n_outputs, example_shape, **options)
    except Exception as error:
        raise ValueError(f"{name}: {type(error).__name__}: {error}") from error
    _check(made, name, n_outputs, example_shape)
    return made


def _imported(name: str) -> Callable[..., Any]:
    """Imports a function from the working directory, or from what is installed."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        # A module that was written since the last import.
        importlib.invalidate_caches()
        function = pkgutil.resolve_name(name)
    except Exception as error:
        raise ValueError(
            f"{name} cannot be imported from {here} or from what is installed: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        sys.path.remove(here)
    if not callable(function):
        raise ValueError(f"{name} must be a function; it is a {type(function).__name__}.")
    return function


def _loaded(
    network: SavedNetwork, n_outputs: int | None, example_shape: tuple[int, ...]
) -> keras.Model:
    """Loads a network from its file, if that is the file that the recipe means."""
    file = Path(network.name)
    if not file.is_file():
        raise ValueError(f"there is no file {file}.")
    with tempfile.TemporaryDirectory() as private:
        # What is loaded is what was hashed.
        copied = Path(private) / file.name
        digest = sha256_of(file, copied)
        if network.sha256 not in (None, digest):
            raise ValueError(
                f"{file} is another file than the recipe's: its SHA-256 digest is {digest}, not "
                f"{network.sha256}."
            )
        loaded = load_model(copied, str(file))
    _check(loaded, str(file), n_outputs, example_shape)
    return loaded


def _check(made: Any, name: str, n_outputs: int | None, example_shape: tuple[int, ...]) -> None:
    """Checks that a network of the user's own fits the episodes, as far as it tells."""
    if not isinstance(made, keras.Model):
        raise ValueError(f"{name} must give a keras.Model; got a {type(made).__name__}.")
    shape = getattr(made, "input_shape", None)
    if isinstance(shape, tuple):
        fits = len(shape) == len(example_shape) + 1 and all(
            a in (None, b) for a, b in zip(shape[1:], example_shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{name} takes examples of shape {shape[1:]}, but the data have {example_shape}."
            )
    outputs = getattr(made, "output_shape", None)
    if n_outputs is not None and isinstance(outputs, tuple) and outputs[-1] != n_outputs:
        raise ValueError(
            f"{name} must have {n_outputs} outputs, as many as an episode has classes or a task "
            f"has values; it has {outputs[-1]}."
        )
