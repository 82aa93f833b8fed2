"""Images against Pillow's decoding and resampling."""

import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfmeta.data import ImageFormat
from tfmeta.data.decoding import UnreadableImageError

RNG = np.random.RandomState(0)
NOISE = RNG.randint(0, 256, (40, 50, 3)).astype(np.uint8)
SMOOTH = np.stack(
    [*np.meshgrid(np.arange(50) * 4, np.arange(40) * 5), np.full((40, 50), 90)], axis=-1
).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> tf.Tensor:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return tf.constant(file.getvalue())


def pillow_lanczos(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's LANCZOS of `[h, w, channels]`, in floats: in bytes, it rounds between two passes."""
    bands = [Image.fromarray(band).convert("F") for band in np.moveaxis(pixels, -1, 0)]
    resized = [band.resize((width, height), Image.Resampling.LANCZOS) for band in bands]
    return np.clip(np.stack([np.asarray(band) for band in resized], axis=-1), 0, 255)


@pytest.mark.parametrize("size", [(28, 28), (9, 77), (80, 61), (40, 50)])
@pytest.mark.parametrize("pixels", [NOISE, SMOOTH, (NOISE > 127) * np.uint8(255)])
def test_resizing_is_pillows_lanczos(pixels: np.ndarray, size: tuple[int, int]) -> None:
    ours = ImageFormat(*size).from_pixels(tf.constant(pixels)).numpy()
    assert ours.dtype == np.uint8
    # Rounding is off by a half at most; the two sum float32 products in different orders.
    assert np.abs(ours - pillow_lanczos(pixels, *size)).max() <= 0.5 + 0.01


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    ours = ImageFormat(40, 50).from_bytes(encode(Image.fromarray(NOISE), "PNG"))
    np.testing.assert_array_equal(ours, NOISE)


@pytest.mark.parametrize("channels", [1, 3])
def test_invert_turns_dark_to_light(channels: int) -> None:
    encoded = encode(Image.fromarray(NOISE), "PNG")
    plain = ImageFormat(20, 20, channels).from_bytes(encoded).numpy()
    inverted = ImageFormat(20, 20, channels, invert=True).from_bytes(encoded).numpy()
    assert plain.std() > 0
    np.testing.assert_array_equal(inverted, 255 - plain)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_kinds_of_files_decode_to_the_channels(kind: str, mode: str, channels: int) -> None:
    image = Image.fromarray(SMOOTH).convert(mode)
    encoded = encode(image, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))
    decoded = Image.open(io.BytesIO(encoded.numpy())).convert("RGB")
    expected = np.asarray(decoded if channels == 3 else decoded.convert("L"))
    ours = ImageFormat(40, 50, channels).from_bytes(encoded).numpy().astype(int)
    # Grey is rounded by one and cut by the other. TensorFlow's JPEG decoder trades some accuracy
    # of the cosine transform for speed: 1 or 2 levels in each of YCbCr, of which blue is
    # Y + 1.77 Cb.
    tolerance = 6 if kind == "JPEG" else 1
    assert ours.shape == (40, 50, channels)
    assert np.abs(ours - expected.reshape(ours.shape)).max() <= tolerance


@pytest.mark.parametrize("channels", [1, 3])
def test_the_first_frame_of_an_animation_is_taken(channels: int) -> None:
    frames = [Image.new("L", (6, 5), level) for level in (200, 10)]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    ours = ImageFormat(5, 6, channels).from_bytes(encoded).numpy().astype(int)
    assert np.abs(ours - 200).max() <= 1


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_decoding_works_in_a_graph(kind: str, orientation: int) -> None:
    image_format = ImageFormat(7, 6, 1)
    exif = Image.Exif()
    exif[274] = orientation
    encoded = encode(Image.fromarray(NOISE), kind, exif=exif)
    data = tf.data.Dataset.from_tensors(encoded).map(image_format.from_bytes)
    assert data.element_spec.shape == image_format.shape == (7, 6, 1)
    np.testing.assert_array_equal(next(iter(data)), image_format.from_bytes(encoded))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("keep", [0, 3, 40, -2000])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF"])
def test_damaged_images_are_refused(kind: str, keep: int, channels: int) -> None:
    whole = encode(Image.fromarray(NOISE), kind).numpy()
    assert keep < len(whole)
    with pytest.raises(UnreadableImageError, match=r"^The image is broken, or not an image"):
        ImageFormat(7, 6, channels).from_bytes(tf.constant(whole[:keep]))


def test_plain_pngs_and_jpegs_are_decoded_as_before() -> None:
    # What was learned from such files stays right: TensorFlow's decoder, bit for bit.
    for kind, mode in [("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "L")]:
        encoded = encode(Image.fromarray(NOISE).convert(mode), kind)
        for channels in (1, 3):
            image_format = ImageFormat(20, 24, channels)
            pixels = tf.io.decode_image(encoded, channels, expand_animations=False)
            expected = image_format.from_pixels(pixels)
            np.testing.assert_array_equal(image_format.from_bytes(encoded), expected)


@pytest.mark.parametrize("arguments", [(0, 5), (5, -1), (5, 5, 2), (5, 5, 4)])
def test_bad_formats_are_told(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"1 or more and 1 or 3 channels; got ImageFormat\("):
        ImageFormat(*arguments)
