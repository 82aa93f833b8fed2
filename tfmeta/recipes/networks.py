"""The options of a recipe's base network."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from tfmeta.recipes.options import Expected, Named, Natural, Positive, Widths, known_name


class Conv4(Named):
    """The four-block convolutional network of most few-shot papers."""

    name: Literal["conv4"]
    filters: Positive = 64
    """Channels of each block."""
    downsampling: Annotated[Literal["stride", "max_pool"], Expected()] = "stride"
    """How each block halves the image."""
    head: Annotated[Literal["mean", "flatten"], Expected()] = "mean"
    """The input of the last layer: the spatial mean of the last block, or all of it."""


class FiLMConv4(Named):
    """A `conv4` whose third block is modulated by a context, for CAVIA."""

    name: Literal["film_conv4"]
    n_context: Positive = 100
    """Number of context parameters."""
    filters: Positive = 64
    """Channels of each block."""


class Linear(Named):
    """One linear layer: linear or logistic regression."""

    name: Literal["linear"]


class MLP(Named):
    """A multi-layer perceptron with ReLU."""

    name: Literal["mlp"]
    hidden_units: Widths = (40, 40)
    """Width of each hidden layer."""
    n_context: Natural = 0
    """Number of context parameters, a second input for CAVIA; 0 for none."""


class RelationEncoder(Named):
    """The encoder of the Relation Network, which returns maps."""

    name: Literal["relation_encoder"]
    filters: Positive = 64
    """Channels of each block."""


NETWORKS: dict[str, type[Named]] = {
    "conv4": Conv4,
    "film_conv4": FiLMConv4,
    "linear": Linear,
    "mlp": MLP,
    "relation_encoder": RelationEncoder,
}

Network: TypeAlias = Annotated[
    Conv4 | FiLMConv4 | Linear | MLP | RelationEncoder,
    Field(discriminator="name"),
    known_name(NETWORKS),
]
