"""Reads the headers of PNG and JPEG files inside the exported graph.

They tell how an image must be turned, and which images TensorFlow would decode wrongly.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

ORIENTATION = 274  # the tag in EXIF
SHORT, LONG = 3, 4  # types of EXIF values, of 2 and 4 bytes


class PngHeader(NamedTuple):
    """Facts about a PNG file, scalars each.

    Attributes:
        bits: int64. The bits of a channel.
        is_transparent: bool. Whether the file has an alpha channel, or a transparent colour.
        orientation: int64. How the camera was held, as in EXIF: 1 (upright) to 8.
    """

    bits: tf.Tensor
    is_transparent: tf.Tensor
    orientation: tf.Tensor


def png_header(encoded: tf.Tensor) -> PngHeader:
    """Reads the chunks of a PNG file.

    Args:
        encoded: string scalar. The content of the file, which may be damaged.
    """
    data = tf.io.decode_raw(encoded, tf.uint8)
    size = tf.size(data, tf.int64)

    def name_at(at: tf.Tensor) -> tf.Tensor:
        return _number(data, at + 4, 4)

    def next_chunk(
        at: tf.Tensor, has_colour: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        end = at + 12 + _number(data, at, 4)
        has_colour |= name_at(at) == _name(b"tRNS")
        is_exif = name_at(at) == _name(b"eXIf")
        return end, has_colour, tf.where(is_exif, tf.stack([at + 8, end - 4]), exif)

    start = tf.constant(8, tf.int64)
    _, has_colour, exif = tf.while_loop(
        lambda at, *_: (at < size) & (name_at(at) != _name(b"IEND")),
        next_chunk,
        (start, tf.constant(False), tf.zeros([2], tf.int64)),
    )
    has_alpha = _number(data, start + 17, 1) >= 4
    return PngHeader(
        _number(data, start + 16, 1), has_alpha | has_colour, _orientation(data[exif[0] : exif[1]])
    )


def jpeg_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Reads how the camera was held from the first EXIF block of a JPEG file.

    Args:
        encoded: string scalar. The content of the file, which may be damaged.

    Returns:
        int64 scalar, 1 (upright) to 8.
    """
    data = tf.io.decode_raw(encoded, tf.uint8)

    def is_before_pixels(at: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
        marker = _number(data, at + 1, 1)
        is_header = (_number(data, at, 1) == 0xFF) & (marker != 0xDA) & (marker != 0xD9)
        return is_header & (exif[1] == 0)

    def next_segment(at: tf.Tensor, exif: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        marker = _number(data, at + 1, 1)
        end = at + 2 + _number(data, at + 2, 2)
        # "Exif", then two zeros.
        is_exif = (
            (marker == 0xE1)
            & (_number(data, at + 4, 4) == _name(b"Exif"))
            & (_number(data, at + 8, 2) == 0)
        )
        exif = tf.where(is_exif, tf.stack([at + 10, end]), exif)
        # Some markers have no length, and 0xFF may be repeated before a marker.
        is_alone = (marker == 0x01) | ((marker >= 0xD0) & (marker <= 0xD8))
        return tf.where(marker == 0xFF, at + 1, tf.where(is_alone, at + 2, end)), exif

    start = tf.constant(2, tf.int64)
    _, exif = tf.while_loop(is_before_pixels, next_segment, (start, tf.zeros([2], tf.int64)))
    return _orientation(data[exif[0] : exif[1]])


def _orientation(exif: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in the bytes of an EXIF block; 1 if it has none or is broken."""
    order = _number(exif, 0, 2)
    is_little = order == _name(b"II")
    is_exif = (is_little | (order == _name(b"MM"))) & (_number(exif, 2, 2, is_little) == 42)
    start = _number(exif, 4, 4, is_little)
    n_entries = _number(exif, start, 2, is_little)
    table = exif[start + 2 : start + 2 + 12 * n_entries]
    entries = tf.cast(tf.reshape(table[: 12 * (tf.size(table) // 12)], [-1, 12]), tf.int64)

    def column(at: int, size: int) -> tf.Tensor:
        digits = entries[:, at : at + size]
        return tf.reduce_sum(digits * _weights(size, is_little), axis=1)

    kind = column(2, 2)
    values = tf.where(kind == SHORT, column(8, 2), column(8, 4))
    is_valid = (column(0, 2) == ORIENTATION) & ((kind == SHORT) | (kind == LONG))
    is_valid &= (values >= 1) & (values <= 8)
    value = tf.reduce_max(tf.where(is_valid, values, 1))
    return tf.where(is_exif & (tf.size(entries) > 0), value, 1)


def _name(text: bytes) -> int:
    return int.from_bytes(text, "big")


def _number(
    data: tf.Tensor, at: tf.Tensor | int, size: int, is_little: tf.Tensor | bool = False
) -> tf.Tensor:
    """Returns the number in some bytes as int64; bytes behind the end of the data are zeros."""
    digits = tf.cast(data[at : at + size], tf.int64)
    digits = tf.pad(digits, [[0, size - tf.size(digits)]])
    return tf.reduce_sum(digits * _weights(size, is_little))


def _weights(size: int, is_little: tf.Tensor | bool) -> tf.Tensor:
    """Returns the weights of the bytes of a number."""
    weights = [256**i for i in range(size)]
    return tf.where(is_little, tf.constant(weights, tf.int64), tf.constant(weights[::-1], tf.int64))
