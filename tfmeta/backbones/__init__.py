"""Base networks from the papers, and encoders that were trained before.

Learners take any Keras 3 model with one input and one output.
"""

from tfmeta.backbones.conv4 import conv4
from tfmeta.backbones.efficientnet_lite0 import efficientnet_lite0
from tfmeta.backbones.film_conv4 import film_conv4
from tfmeta.backbones.from_keras import from_keras
from tfmeta.backbones.generator import example_encoder, generator
from tfmeta.backbones.identity import identity
from tfmeta.backbones.linear import linear
from tfmeta.backbones.mlp import mlp
from tfmeta.backbones.pretrained import pretrained
from tfmeta.backbones.relation import relation_encoder, relation_module
from tfmeta.backbones.relation_mlp import relation_mlp

__all__ = [
    "conv4",
    "efficientnet_lite0",
    "example_encoder",
    "film_conv4",
    "from_keras",
    "generator",
    "identity",
    "linear",
    "mlp",
    "pretrained",
    "relation_encoder",
    "relation_mlp",
    "relation_module",
]
