"""The layers that change a recipe's images at random, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import pydantic

from tfmeta.recipes.options import Expected, check_plain, refusal, shown
from tfmeta.registry import hint

# Keras's layers without weights whose random numbers follow from an episode's seed and index, so
# that a run that was interrupted makes the same images; and those that pad, resize or clip for
# them. Not AugMix, which draws from Python's generator, and nothing that runs code of its own.
LAYERS = (
    "GaussianNoise",
    "RandAugment",
    "RandomBrightness",
    "RandomColorDegeneration",
    "RandomColorJitter",
    "RandomContrast",
    "RandomCrop",
    "RandomElasticTransform",
    "RandomErasing",
    "RandomFlip",
    "RandomGaussianBlur",
    "RandomGrayscale",
    "RandomHue",
    "RandomInvert",
    "RandomPerspective",
    "RandomPosterization",
    "RandomRotation",
    "RandomSaturation",
    "RandomSharpness",
    "RandomShear",
    "RandomTranslation",
    "RandomZoom",
    "ReLU",
    "Resizing",
    "Solarization",
    "ZeroPadding2D",
)
PARTS = ("support", "query")
EXPECTED = (
    "a Keras layer, such as RandomFlip or {class_name: …, config: {…}}; a list of layers; "
    "{support: …, query: …} of these; or null"
)


def _check_augment(value: Any) -> Any:
    if value is None:
        return None
    try:
        check_plain(value)
    except ValueError as error:
        raise refusal(f"must be {EXPECTED}; got {shown(value)}: {error}.") from error
    if isinstance(value, Mapping) and "class_name" not in value:
        if not value or not set(value) <= set(PARTS):
            raise refusal(f"must be {EXPECTED}; got {shown(value)}.")
        return {part: _checked_layers(layers, f"{part}: ") for part, layers in value.items()}
    return _checked_layers(value)


def _checked_layers(value: Any, where: str = "") -> Any:
    """Checks a layer, or a list of at least one. `where` begins what is told of a layer."""
    if not isinstance(value, list | tuple):
        _check_layer(value, where)
        return value
    if not value:
        raise refusal(f"must be {EXPECTED}; got an empty list.")
    for layer in value:
        _check_layer(layer, where)
    return list(value)


def _check_layer(value: Any, where: str) -> None:
    given = {"class_name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or "class_name" not in given:
        raise refusal(f"must be {EXPECTED}; got {shown(value)}.")
    name, config = given["class_name"], given.get("config", {})
    if name not in LAYERS:
        advice = hint(name, LAYERS)
        if not advice.startswith("did you mean"):
            advice = f"expected one of {', '.join(LAYERS)}."
        raise refusal(f"{where}unknown layer {shown(name)}; {advice}")
    if others := sorted(given.keys() - {"class_name", "config"}):
        raise refusal(
            f"{where}{name}: a layer has class_name and config; got {shown(others)}, too."
        )
    if not isinstance(config, Mapping):
        raise refusal(f"{where}{name}: config must be a mapping; got {shown(config)}.")
    for key, option in config.items():
        if _has_mapping(option):
            # Keras would make an object of it.
            raise refusal(
                f"{where}{name}: {key[:100]} must be a number, text, true, false, null or a list "
                f"of these; got {shown(option)}."
            )


def _has_mapping(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_mapping, value))
    return isinstance(value, Mapping)


Augment = Annotated[Any, Expected(EXPECTED), pydantic.BeforeValidator(_check_augment)]
