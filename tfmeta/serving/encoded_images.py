"""Decodes the PNG and JPEG files of a request inside the exported graph.

They become the same examples as those that `tfmeta predict` makes of them, or are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from tfmeta.data.images import ImageFormat, decode_plain, upright
from tfmeta.data.pixels import on_white, to_grey
from tfmeta.serving.image_headers import jpeg_orientation, png_header
from tfmeta.serving.requests import IMAGE_INPUTS, Tensors, after_checks

# The most pixels that an encoded image may have: a few bytes can decode to gigabytes.
MOST_PIXELS = 2**24

# The first bytes of the files. In a PNG, width and height follow.
PNG, JPEG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff"


class ImageDecoder(NamedTuple):
    """Decodes the files of one input. It is traced once for all signatures that have the input.

    Attributes:
        shape: tuple of int. The shape `(height, width, channels)` of an example.
        decode: callable. From a file and whether it exists, scalars of string and bool, to pixels
            as uint8: those of the file, or zeros.
    """

    shape: tuple[int, int, int]
    decode: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def image_decoders(image_format: ImageFormat) -> dict[str, ImageDecoder]:
    """Returns a decoder for each input that may be images, by the input's name.

    Args:
        image_format: ImageFormat. How images become arrays.
    """
    return {
        name: ImageDecoder(image_format.shape, _traced_decoder(name, image_format))
        for name in IMAGE_INPUTS.values()
    }


def on_encoded_images(
    function: Callable[[Tensors], dict[str, tf.Tensor]],
    specs: Mapping[str, tf.TensorSpec],
    decoders: Mapping[str, ImageDecoder],
) -> tuple[Callable[[Tensors], dict[str, tf.Tensor]], dict[str, tf.TensorSpec]]:
    """Returns a function of PNG or JPEG files instead of arrays, and its inputs.

    Args:
        function: callable. A function of the tensors that a request holds, by name. It is given
            the decoded images under the names that the files have, so that its errors name them.
        specs: dict of `tf.TensorSpec`. What the function takes.
        decoders: dict of ImageDecoder. The decoders that `image_decoders` returns.
    """

    def on_images(inputs: Tensors) -> dict[str, tf.Tensor]:
        decoded = dict(inputs)
        for name, spec in specs.items():
            if name in IMAGE_INPUTS:
                images = IMAGE_INPUTS[name]
                mask = inputs["support_mask"] if name == "support_x" else None
                pixels = _decoded(images, inputs[images], mask, decoders[images])
                decoded[images] = tf.cast(pixels, spec.dtype)
        return function(decoded)

    image_specs = {}
    for name, spec in specs.items():
        if name in IMAGE_INPUTS:
            spec = tf.TensorSpec(spec.shape[:-3], tf.string, IMAGE_INPUTS[name])
        image_specs[IMAGE_INPUTS.get(name, name)] = spec
    return on_images, image_specs


def _decoded(
    name: str, encoded: tf.Tensor, mask: tf.Tensor | None, decoder: ImageDecoder
) -> tf.Tensor:
    """Returns images `[…, height, width, channels]` from 0 to 1, and zeros for padding."""
    exists = tf.ones(tf.shape(encoded), tf.bool) if mask is None else mask > 0
    if mask is not None:
        is_equal = tf.reduce_all(tf.equal(tf.shape(encoded), tf.shape(mask)))
        encoded, exists = after_checks(
            [(f"{name} and support_mask must have the same shape", is_equal)], encoded, exists
        )
    is_png = tf.strings.substr(encoded, 0, len(PNG)) == PNG
    is_jpeg = tf.strings.substr(encoded, 0, len(JPEG)) == JPEG
    (encoded,) = after_checks(
        [(f"{name} must be PNG or JPEG files", tf.reduce_all(is_png | is_jpeg | ~exists))],
        encoded,
    )

    pixels = tf.map_fn(
        lambda elements: decoder.decode(*elements),
        (tf.reshape(encoded, [-1]), tf.reshape(exists, [-1])),
        fn_output_signature=tf.TensorSpec(decoder.shape, tf.uint8),
    )
    shape = tf.concat([tf.shape(encoded), decoder.shape], axis=0)
    return tf.reshape(tf.cast(pixels, tf.float32) / 255, shape)


def _traced_decoder(
    name: str, image_format: ImageFormat
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    specs = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool)]

    @tf.function(input_signature=specs, autograph=False)
    def decode(file: tf.Tensor, exists: tf.Tensor) -> tf.Tensor:
        # An error about a file that cannot be decoded contains the scope's name.
        with tf.name_scope(f"{name}_must_be_whole_PNG_or_JPEG_files"):
            return tf.cond(
                exists,
                lambda: image_format.from_pixels(
                    _decoded_file(name, _with_checked_size(name, file), image_format.channels)
                ),
                lambda: tf.zeros(image_format.shape, tf.uint8),
            )

    return decode


def _with_checked_size(name: str, encoded: tf.Tensor) -> tf.Tensor:
    """Returns the file after a check of the number of pixels that its header claims."""
    size = tf.cond(
        tf.strings.substr(encoded, 0, len(PNG)) == PNG,
        lambda: tf.io.decode_raw(
            tf.strings.substr(encoded, len(PNG), 8), tf.int32, little_endian=False
        ),
        lambda: tf.image.extract_jpeg_shape(encoded)[:2],
    )
    n_pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    is_decodable = tf.reduce_all(size > 0) & (n_pixels <= MOST_PIXELS)
    message = f"{name} must have from 1 to {MOST_PIXELS} pixels each"
    return after_checks([(message, is_decodable)], encoded)[0]


def _decoded_file(name: str, encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns the pixels `[h, w, channels]` of a file, upright and on white ground."""

    def decode_png() -> tf.Tensor:
        header = png_header(encoded)
        message = f"{name} must have at most 8 bits per channel: convert files of 16 bits"
        (file,) = after_checks([(message, header.bits <= 8)], encoded)
        image = tf.cond(
            header.is_transparent,
            lambda: _on_white(tf.io.decode_png(file, channels=4), channels),
            lambda: decode_plain(file, channels),
        )
        return upright(image, tf.cast(header.orientation, tf.int32))

    def decode_jpeg() -> tf.Tensor:
        n_channels = tf.image.extract_jpeg_shape(encoded)[2]
        message = f"{name} must be grey or RGB: convert files in CMYK"
        is_decodable = tf.reduce_any(tf.equal(n_channels, [1, 3]))
        (file,) = after_checks([(message, is_decodable)], encoded)
        orientation = tf.cast(jpeg_orientation(file), tf.int32)
        return upright(decode_plain(file, channels), orientation)

    is_png = tf.strings.substr(encoded, 0, len(PNG)) == PNG
    return tf.ensure_shape(tf.cond(is_png, decode_png, decode_jpeg), [None, None, channels])


def _on_white(rgba: tf.Tensor, channels: int) -> tf.Tensor:
    pixels = on_white(tf.cast(rgba, tf.int32))
    return tf.cast(to_grey(pixels) if channels == 1 else pixels, tf.uint8)
