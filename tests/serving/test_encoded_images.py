"""A servable makes the same examples of image files as `tfmeta predict`, or refuses them."""

import io
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfmeta.data import ImageFormat
from tfmeta.serving.encoded_images import image_decoders, on_encoded_images
from tfmeta.serving.image_headers import PngHeader, png_header

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[271], block[306], block[274] = "a camera", "2026:01:01 00:00:00", orientation
    return block


def big_endian(orientation: int) -> bytes:
    entry = b"\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + b"\0\0"
    return b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0"


def files() -> dict[str, bytes]:
    """Files that a servable decodes, by what they are."""
    image = Image.fromarray(NOISE)
    found = {}
    for kind in ("PNG", "JPEG"):
        for mode in ("RGB", "L"):
            found |= {
                f"{kind} {mode} {k}": encode(image.convert(mode), kind, exif=exif(k))
                for k in range(1, 9)
            }
        found[f"{kind} plain"] = encode(image, kind)
        found[f"{kind} big-endian"] = encode(image, kind, exif=big_endian(8))
        for size in range(6, 30, 4):
            found[f"{kind} cut {size}"] = encode(image, kind, exif=big_endian(6)[:size])
    comment = b"Exif\0\0 is no EXIF here"
    found["JPEG comment"] = encode(image, "JPEG", comment=comment, exif=exif(3))
    found["JPEG only a comment"] = encode(image, "JPEG", comment=comment)
    for mode in ("RGBA", "LA"):
        faded = image.convert(mode)
        faded.putalpha(Image.fromarray(RNG.integers(0, 256, (12, 20), dtype=np.uint8)))
        found[f"PNG {mode}"] = encode(faded, "PNG", exif=exif(6))
    for mode, colour in {"RGB": (0, 0, 0), "L": 0, "P": 3, "1": 0}.items():
        few = Image.fromarray(NOISE // 128 * 255).convert(mode)
        found[f"PNG {mode} with a transparent colour"] = encode(few, "PNG", transparency=colour)
        found[f"PNG {mode}"] = encode(few, "PNG")
    return found


@pytest.fixture(scope="module", params=[(1, True), (3, False)], ids=["grey", "colour"])
def decoder(request: pytest.FixtureRequest) -> tuple[ImageFormat, Any]:
    """An image format, and the function of files in a servable's graph."""
    channels, invert = request.param
    image_format = ImageFormat(9, 7, channels, invert)
    spec = {"x": tf.TensorSpec([None, *image_format.shape], tf.float32, "x")}
    function, specs = on_encoded_images(lambda inputs: inputs, spec, image_decoders(image_format))
    return image_format, tf.function(function, input_signature=[specs], autograph=False)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_files_become_the_examples_of_the_command_line(decoder: tuple[ImageFormat, Any]) -> None:
    image_format, function = decoder
    by_name = files()
    images = function({"images": tf.constant(list(by_name.values()))})["images"].numpy()
    for (name, content), ours in zip(by_name.items(), images, strict=True):
        expected = image_format.from_bytes(content).numpy() / np.float32(255)
        np.testing.assert_allclose(ours, expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("mode", "kind", "message"),
    [
        ("CMYK", "JPEG", "images must be grey or RGB: convert files in CMYK"),
        ("I;16", "PNG", "images must have at most 8 bits per channel"),
        ("RGB", "WEBP", "images must be PNG or JPEG"),
        ("RGB", "TIFF", "images must be PNG or JPEG"),
    ],
)
def test_files_that_would_look_otherwise_are_refused(
    decoder: tuple[ImageFormat, Any], mode: str, kind: str, message: str
) -> None:
    deep = Image.fromarray(NOISE[..., 0].astype(np.uint16) * 256)
    content = encode(deep if mode == "I;16" else Image.fromarray(NOISE).convert(mode), kind)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decoder[1]({"images": tf.constant([content])})


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_headers_end_in_an_answer_or_an_error(
    decoder: tuple[ImageFormat, Any], kind: str
) -> None:
    whole = encode(Image.fromarray(NOISE), kind, exif=exif(6))
    n_refused = 0
    for at in range(8, 120, 3):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        try:
            answer = decoder[1]({"images": tf.constant([bytes(damaged)])})["images"]
        except tf.errors.InvalidArgumentError:
            n_refused += 1
        else:
            assert np.isfinite(answer).all()
    assert n_refused > 0


def test_decoding_is_traced_once_for_all_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace has hundreds of operations, and a servable has up to three signatures of images."""
    traces = []

    def traced(encoded: tf.Tensor) -> PngHeader:
        traces.append(encoded)
        return png_header(encoded)

    monkeypatch.setattr("tfmeta.serving.encoded_images.png_header", traced)
    image_format = ImageFormat(9, 7, 1)
    spec = {"x": tf.TensorSpec([None, *image_format.shape], tf.float32, "x")}
    decoders = image_decoders(image_format)
    for _ in range(2):
        function, specs = on_encoded_images(lambda inputs: inputs, spec, decoders)
        tf.function(function, input_signature=[specs], autograph=False).get_concrete_function()
    assert len(traces) == 1
