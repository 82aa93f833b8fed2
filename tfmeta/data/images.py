"""How image files become the arrays that a network was trained on."""

from __future__ import annotations

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """The preprocessing of images: size, channels, and which colour is 1.

    Attributes:
        height: Pixels.
        width: Pixels.
        channels: 1 (grey) or 3 (RGB).
        invert: Whether dark becomes 1 and light 0: for ink on paper.
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
        return self.height, self.width, self.channels

    def from_bytes(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes a PNG, JPEG, BMP or GIF (its first frame) to `[height, width, channels]` uint8.

        Smaller images result from antialiased Lanczos resampling, as in MAML's preparation of
        Omniglot.
        """

        def decode(channels: int) -> tf.Tensor:
            return tf.io.decode_image(encoded, channels=channels, expand_animations=False)

        if self.channels == 3:
            return self.from_pixels(decode(3))
        # TensorFlow decodes BMP and GIF, which begin like this, to colours only.
        colours_only = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, 2), "BM|GI")
        image = tf.cond(
            colours_only, lambda: tf.image.rgb_to_grayscale(decode(3)), lambda: decode(1)
        )
        return self.from_pixels(image)

    def from_pixels(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes `[h, w, channels]` uint8 pixels to this format."""
        image = tf.ensure_shape(image, [None, None, self.channels])
        resized = tf.image.resize(
            image, (self.height, self.width), method="lanczos3", antialias=True
        )
        pixels = tf.saturate_cast(tf.round(resized), tf.uint8)
        return 255 - pixels if self.invert else pixels
