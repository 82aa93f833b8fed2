"""Which image files are read, and how they become the arrays that a network is trained on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

# Image files that are read, in folders of classes, by `tfmeta adapt` and by `tfmeta predict`.
# WebP is not among them: TensorFlow 2.21 decodes no grey or transparent WebP image, and some
# animated ones abort the process.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """The preprocessing of images: their size, their channels, and which colour is 1.

    TensorFlow is imported when the first image is read: recipes, which contain image formats, are
    checked without it.

    Attributes:
        height: int. Height in pixels.
        width: int. Width in pixels.
        channels: int. 1 (grey) or 3 (RGB). Defaults to 3.
        invert: bool. Whether dark becomes 1 and light 0, for ink on paper. Defaults to False.
    """

    height: int
    width: int
    channels: int = 3
    invert: bool = False

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.channels not in (1, 3):
            raise ValueError(
                "An image format needs a height and width of 1 or more and 1 or 3 channels; "
                f"got {self}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    def from_bytes(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes and resizes one image file.

        Smaller images result from antialiased Lanczos resampling, as in MAML's preparation of
        Omniglot.

        Args:
            encoded: string scalar. The content of a PNG, JPEG, BMP or GIF file. Of an animation,
                the first frame is read.

        Returns:
            uint8 `[height, width, channels]`.
        """
        import tensorflow as tf

        def decode(channels: int) -> tf.Tensor:
            return tf.io.decode_image(encoded, channels=channels, expand_animations=False)

        if self.channels == 3:
            return self.from_pixels(decode(3))
        # TensorFlow decodes BMP and GIF files, which begin with these letters, to colours only.
        colours_only = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, 2), "BM|GI")
        image = tf.cond(
            colours_only, lambda: tf.image.rgb_to_grayscale(decode(3)), lambda: decode(1)
        )
        return self.from_pixels(image)

    def from_pixels(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes the pixels of one image to this format.

        Args:
            image: uint8 `[h, w, channels]`. The pixels, light = 255.

        Returns:
            uint8 `[height, width, channels]`.
        """
        import tensorflow as tf

        image = tf.ensure_shape(image, [None, None, self.channels])
        resized = tf.image.resize(
            image, (self.height, self.width), method="lanczos3", antialias=True
        )
        pixels = tf.saturate_cast(tf.round(resized), tf.uint8)
        return 255 - pixels if self.invert else pixels
