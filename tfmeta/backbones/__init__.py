"""Base networks. Learners take any Keras 3 model; these are the ones that the papers use."""

from tfmeta.backbones.conv4 import conv4
from tfmeta.backbones.linear import linear
from tfmeta.backbones.mlp import mlp

__all__ = ["conv4", "linear", "mlp"]
