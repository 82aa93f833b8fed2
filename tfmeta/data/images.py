"""Reads image files and turns them into the arrays that a network is trained on."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from tfmeta.data import decoding
from tfmeta.data.decoding import Header, UnreadableImageError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class ImageFormat:
    """The preprocessing of images: their size, their channels, and which colour is 1.

    TensorFlow and Pillow are imported when the first image is read: recipes, which contain image
    formats, are checked without them.

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
        """The shape (height, width, channels)."""
        return self.height, self.width, self.channels

    def from_bytes(self, encoded: bytes | tf.Tensor) -> tf.Tensor:
        """Decodes and resizes one image file, as a viewer shows it.

        The guide states the rules ("Your own pictures"): the image is turned upright by its EXIF
        orientation, transparency is laid on white (which `invert` turns to 0), of 16 bits the
        upper 8 are taken. Smaller images result from antialiased Lanczos resampling, as in MAML's
        preparation of Omniglot.

        Args:
            encoded: bytes, or a string scalar. The content of a PNG, JPEG, BMP, GIF, TIFF or WebP
                file. Of an animation, the first frame is read.

        Returns:
            uint8 `[height, width, channels]`.

        Raises:
            UnreadableImageError: If it is no image, is broken, has more pixels than
                `PIL.Image.MAX_IMAGE_PIXELS`, or has 16 bits and uses few of them. In a graph, an
                error of TensorFlow with the same message.
        """
        import tensorflow as tf

        if tf.executing_eagerly():
            with decoding.naming("The image"):
                return self.from_content(tf.convert_to_tensor(encoded).numpy())
        by_pillow, orientation = tf.numpy_function(
            functools.partial(_decode_if_needed, channels=self.channels),
            [encoded],
            (tf.uint8, tf.int32),
        )
        by_pillow = tf.ensure_shape(by_pillow, [None, None, self.channels])
        image = tf.cond(
            tf.size(by_pillow) > 0,
            lambda: by_pillow,
            lambda: upright(decode_plain(encoded, self.channels), orientation),
        )
        return self.from_pixels(image)

    def from_content(self, content: bytes) -> tf.Tensor:
        """Decodes and resizes one image file eagerly; see `from_bytes`.

        Args:
            content: bytes. The content of the file.

        Raises:
            UnreadableImageError: If it cannot be read. The message is what comes after the name of
                the file; see `decoding.naming`.
        """
        import tensorflow as tf

        header = decoding.header_of(content)
        if not header.by_tensorflow:
            return self.from_pixels(decoding.decode(content, self.channels))
        try:
            image = decode_plain(content, self.channels)
        except tf.errors.InvalidArgumentError as error:
            raise UnreadableImageError("is broken, or not an image") from error
        return self.from_pixels(upright(image, header.orientation))

    def from_plain(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes and resizes one image file by TensorFlow alone, as TensorFlow Datasets does.

        Args:
            encoded: string scalar. The content of a PNG, JPEG, BMP or GIF file, whose orientation
                and transparency are ignored.

        Returns:
            uint8 `[height, width, channels]`.
        """
        return self.from_pixels(decode_plain(encoded, self.channels))

    def from_pixels(self, image: Any) -> tf.Tensor:
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


def decode_plain(encoded: bytes | tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes an image file by TensorFlow alone.

    Args:
        encoded: bytes, or a string scalar. The content of a PNG, JPEG, BMP or GIF file.
        channels: int. 1 (grey) or 3 (RGB).

    Returns:
        uint8 `[h, w, channels]`.
    """
    import tensorflow as tf

    def decode(channels: int) -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=channels, expand_animations=False)

    if channels == 3:
        return decode(3)
    # TensorFlow decodes BMP and GIF files, which begin with these letters, to colours only.
    colours_only = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, 2), "BM|GI")
    return tf.cond(colours_only, lambda: tf.image.rgb_to_grayscale(decode(3)), lambda: decode(1))


def upright(image: tf.Tensor, orientation: int | tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image as its EXIF orientation says.

    Args:
        image: `[h, w, channels]`. The pixels, as they are stored.
        orientation: int, or int32 scalar. 1 (upright) to 8.

    Returns:
        `[h, w, channels]`, or `[w, h, channels]`.
    """
    import tensorflow as tf

    def when(orientations: list[int], change: Any, image: tf.Tensor) -> tf.Tensor:
        is_one = tf.reduce_any(tf.equal(orientation, orientations))
        return tf.cond(is_one, lambda: change(image), lambda: image)

    if isinstance(orientation, int) and orientation == 1:
        return image
    image = tf.ensure_shape(image, [None, None, image.shape[-1]])
    image = when([5, 6, 7, 8], lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = when([2, 3, 6, 7], lambda x: tf.reverse(x, [1]), image)
    return when([3, 4, 7, 8], lambda x: tf.reverse(x, [0]), image)


def _decode_if_needed(encoded: bytes, channels: int) -> tuple[np.ndarray, np.int32]:
    """Decodes a file unless TensorFlow decodes it; returns no pixels then, and the orientation."""
    import numpy as np

    with decoding.naming("The image"):
        header: Header = decoding.header_of(encoded)
        if header.by_tensorflow:
            return np.zeros((0, 0, channels), np.uint8), np.int32(header.orientation)
        return decoding.decode(encoded, channels), np.int32(1)
