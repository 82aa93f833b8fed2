"""Base networks from the papers.

Learners take any Keras 3 model with one input and one output.
"""

from tfmeta.backbones.conv4 import conv4
from tfmeta.backbones.film_conv4 import film_conv4
from tfmeta.backbones.linear import linear
from tfmeta.backbones.mlp import mlp
from tfmeta.backbones.relation import relation_encoder, relation_module

__all__ = ["conv4", "film_conv4", "linear", "mlp", "relation_encoder", "relation_module"]
