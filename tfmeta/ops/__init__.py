"""Operations with cheap second derivatives: what the meta-training step spends its time on."""

from tfmeta.ops.convolution import conv2d, patches_size
from tfmeta.ops.normalization import normalize

__all__ = ["conv2d", "normalize", "patches_size"]
