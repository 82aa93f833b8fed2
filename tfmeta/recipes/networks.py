"""The options of a recipe's base network."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import pydantic
from pydantic import BeforeValidator, Discriminator, Field, Tag

from tfmeta.files import sha256_of
from tfmeta.recipes.options import (
    MOST_PLAIN,
    Expected,
    Filters,
    FiltersOrNone,
    Flag,
    Named,
    OptionalPixels,
    Text,
    Widths,
    absolute,
    check_plain,
    name_of,
    refusal,
    shown,
)
from tfmeta.registry import hint

MOST_WEIGHTS = 2**28


class Conv4(Named):
    """The four-block convolutional network of most few-shot papers."""

    name: Literal["conv4"]
    filters: Filters = 64
    """Channels of each block."""
    downsampling: Annotated[Literal["stride", "max_pool"], Expected()] = "stride"
    """How each block halves the image."""
    head: Annotated[Literal["mean", "flatten"], Expected()] = "mean"
    """The input of the last layer: the spatial mean of the last block, or all of it."""


class FiLMConv4(Named):
    """A `conv4` whose third block is modulated by a context, for CAVIA."""

    name: Literal["film_conv4"]
    n_context: Filters = 100
    """Number of context parameters."""
    filters: Filters = 64
    """Channels of each block."""


class Identity(Named):
    """The encoder of examples that are features already, for the learners that take an encoder."""

    name: Literal["identity"]


class Linear(Named):
    """One linear layer: linear or logistic regression."""

    name: Literal["linear"]


class MLP(Named):
    """A multi-layer perceptron with ReLU."""

    name: Literal["mlp"]
    hidden_units: Widths = (40, 40)
    """Width of each hidden layer."""
    n_context: FiltersOrNone = 0
    """Number of context parameters, a second input for CAVIA; 0 for none."""

    @pydantic.model_validator(mode="after")
    def _check_weights(self) -> Self:
        n_weights = sum(a * b for a, b in itertools.pairwise(self.hidden_units))
        if n_weights > MOST_WEIGHTS:
            raise refusal(
                f"hidden_units must give at most {MOST_WEIGHTS:,} weights; got {n_weights:,}."
            )
        return self


class RelationEncoder(Named):
    """The encoder of the Relation Network, which returns maps."""

    name: Literal["relation_encoder"]
    filters: Filters = 64
    """Channels of each block."""


class EfficientNetLite0(Named):
    """An encoder with the weights of ImageNet, for the learners that take an encoder.

    It needs the extra `tfmeta[encoders]`.
    """

    name: Literal["efficientnet_lite0"]
    resize_to: OptionalPixels = None
    """Height and width to which it resizes images. They keep their size if it is null."""
    trainable: Flag = False
    """Whether training changes its weights. Batch norm stays frozen."""


class NetworkFunction(Named):
    """Your own network: `module:function`, a function that returns a Keras model.

    It is called as `function(n_outputs, input_shape, **options)`: n_outputs is the number of
    outputs, or None for features if the learner takes an encoder; input_shape is the shape of one
    example; options are the other keys given here. The module is imported from the working
    directory or from what is installed, as by `python -m`. It is imported by `tfmeta train` and
    `make_learner` alone: to evaluate, adapt or load what was trained runs no code of a recipe.
    Layers of your own must be registered with `keras.saving.register_keras_serializable`, and
    imported before a run is loaded.
    """

    model_config = pydantic.ConfigDict(extra="allow")

    name: Text

    @pydantic.model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key, value in given.items():
                if not (isinstance(key, str) and key.isidentifier()):
                    raise refusal(f"options must be names of arguments; got {shown(key)}.")
                if key in ("n_outputs", "input_shape"):
                    raise refusal(f"{key} is given by tfmeta: leave it out.")
                try:
                    check_plain(value)
                except ValueError:
                    raise refusal(
                        f"{key} must be text, a number up to {MOST_PLAIN:,}, true, false, null, or "
                        f"a list or mapping of these; got {shown(value)}."
                    ) from None
        return given


class SavedNetwork(Named):
    """Your own network, pretrained or not: a file that Keras saved, `./my_network.keras`.

    It keeps its weights, its outputs and its precision, and must fit the episodes. It is loaded in
    Keras's safe mode, which runs no code of the file.
    """

    name: Annotated[str, pydantic.AfterValidator(absolute), Expected("the path of a file")]
    """Path of the file, which ends with `.keras`."""
    sha256: Annotated[
        str | None, Field(pattern="^[0-9a-f]{64}$"), Expected("64 hexadecimal digits, or null")
    ] = None
    """Digest of the file. A run records it, and refuses to go on with another file."""

    @pydantic.model_validator(mode="after")
    def _record_digest(self) -> Self:
        file = Path(self.name)
        if self.sha256 is None and file.is_file():
            return self.model_copy(update={"sha256": sha256_of(file)})
        return self


NETWORKS: dict[str, type[Named]] = {
    "conv4": Conv4,
    "efficientnet_lite0": EfficientNetLite0,
    "film_conv4": FiLMConv4,
    "identity": Identity,
    "linear": Linear,
    "mlp": MLP,
    "relation_encoder": RelationEncoder,
}

# What a network that is none of these is, by its name.
FUNCTION, FILE = "module:function", "file.keras"


def kind_of(name: str) -> str:
    """Returns which network a name stands for: itself, `"module:function"` or `"file.keras"`.

    Args:
        name: str. The name in a recipe.
    """
    if name.endswith(".keras"):
        return FILE
    return FUNCTION if re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", name) else name


def _check(value: Any) -> Any:
    name = name_of(value)
    if kind_of(name) not in (FUNCTION, FILE, *NETWORKS):
        raise refusal(
            f"unknown name {shown(name)}; {hint(name, NETWORKS)} A network of your own is "
            "my_module:my_function or ./my_network.keras."
        )
    return value


Network: TypeAlias = Annotated[
    Annotated[Conv4, Tag("conv4")]
    | Annotated[EfficientNetLite0, Tag("efficientnet_lite0")]
    | Annotated[FiLMConv4, Tag("film_conv4")]
    | Annotated[Identity, Tag("identity")]
    | Annotated[Linear, Tag("linear")]
    | Annotated[MLP, Tag("mlp")]
    | Annotated[RelationEncoder, Tag("relation_encoder")]
    | Annotated[NetworkFunction, Tag(FUNCTION)]
    | Annotated[SavedNetwork, Tag(FILE)],
    Discriminator(lambda value: kind_of(name_of(value))),
    BeforeValidator(_check),
]
