"""Operations with cheap second derivatives, which dominate the meta-training step."""

from tfmeta.ops.convolution import conv2d, patches, patches_size
from tfmeta.ops.normalization import normalize, normalized_product

__all__ = ["conv2d", "normalize", "normalized_product", "patches", "patches_size"]
