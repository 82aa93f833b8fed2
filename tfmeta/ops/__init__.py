"""Operations with cheap or right second derivatives, which replace Keras's inside learners."""

from tfmeta.ops.convolution import conv2d, conv2d_transpose, patches, patches_size
from tfmeta.ops.linear import linear
from tfmeta.ops.normalization import normalize, normalized_product

__all__ = [
    "conv2d",
    "conv2d_transpose",
    "linear",
    "normalize",
    "normalized_product",
    "patches",
    "patches_size",
]
