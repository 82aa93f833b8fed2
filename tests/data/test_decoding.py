"""Image files of all kinds look as a viewer shows them, or are refused by name."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps, features

from tfmeta.data import ImageFormat
from tfmeta.data.decoding import UnreadableImageError, decode, header_of, naming, read_header

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8)
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **LOSSLESS.get(kind, {}), **options)
    return file.getvalue()


def read(content: bytes, channels: int = 1, **options: Any) -> np.ndarray:
    """The pixels at the file's own size."""
    with Image.open(io.BytesIO(content)) as image:
        size = ImageOps.exif_transpose(image).size[::-1]
    return np.asarray(ImageFormat(*size, channels, **options).from_bytes(content), int)


# === Orientation ===


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "a camera"
    options = {"tiffinfo": exif} if kind == "TIFF" else {"exif": exif}
    steps = np.arange(48).reshape(8, 6).astype(np.uint8) * 5
    content = encode(Image.fromarray(steps).convert("RGB"), kind, **options)
    turned = {
        1: steps,
        2: steps[:, ::-1],
        3: steps[::-1, ::-1],
        4: steps[::-1],
        5: steps.T,
        6: np.rot90(steps, -1),
        7: steps[::-1, ::-1].T,
        8: np.rot90(steps),
    }[orientation]
    for channels in (1, 3):
        pixels = read(content, channels)
        assert pixels.shape == (*turned.shape, channels)
        # TensorFlow's decoder of JPEG trades some accuracy for speed.
        assert np.abs(pixels - turned[..., None]).max() <= (9 if kind == "JPEG" else 0)


def test_an_exif_chunk_may_stand_behind_the_pixels() -> None:
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    content = encode(Image.fromarray(NOISE), "PNG")
    end, chunk = content.index(b"IEND") - 4, b"eXIf" + exif
    crc = struct.pack(">I", zlib.crc32(chunk))
    content = content[:end] + struct.pack(">I", len(exif)) + chunk + crc + content[end:]
    assert header_of(content).orientation == 6
    np.testing.assert_array_equal(read(content, 3), np.rot90(NOISE, -1))


@pytest.mark.parametrize("exif", [b"", b"no EXIF", b"II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_is_ignored(exif: bytes) -> None:
    content = encode(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0" + exif)
    assert header_of(content).orientation == 1


# === Transparency ===


def drawings() -> dict[str, Image.Image]:
    """Black ink at one pixel of a transparent ground, stored in different ways."""
    alpha = np.zeros((5, 5), np.uint8)
    alpha[2, 3] = 255
    black = np.zeros((5, 5, 4), np.uint8)
    black[..., 3] = alpha
    palette = Image.fromarray((alpha > 0).astype(np.uint8)).convert("P")
    palette.putpalette([0] * 768)
    return {
        "RGBA": Image.fromarray(black),
        "LA": Image.fromarray(black).convert("LA"),
        "P": palette,
    }


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *[("PNG", mode) for mode in ("RGBA", "LA", "P")],
        *[(kind, mode) for kind in ("WEBP", "TIFF") for mode in ("RGBA", "LA")],
        *[("GIF", mode) for mode in ("RGBA", "P")],
    ],
)
def test_a_transparent_ground_is_white(kind: str, mode: str, channels: int, invert: bool) -> None:
    options = {"transparency": 0} if mode == "P" else {}
    content = encode(drawings()[mode], kind, **options)
    expected = np.full((5, 5, channels), 255)
    expected[2, 3] = 0
    np.testing.assert_array_equal(
        read(content, channels, invert=invert), 255 - expected if invert else expected
    )


def test_half_transparent_colours_are_mixed_with_white() -> None:
    rgba = RNG.integers(0, 256, (9, 9, 4), dtype=np.uint8)
    opacity = rgba[..., 3:] / 255
    expected = rgba[..., :3] * opacity + 255 * (1 - opacity)
    pixels = read(encode(Image.fromarray(rgba), "PNG"), 3)
    assert np.abs(pixels - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    image = Image.fromarray((NOISE > 100) * np.uint8(255)).convert(mode)
    options = {"transparency": (0, 0, 0) if mode == "RGB" else 0}
    image.putpixel((2, 3), 0)
    assert (read(encode(image, "PNG", **options), 3)[3, 2] == 255).all()
    assert (read(encode(image, "PNG"), 3)[3, 2] == 0).all()


# === Bits, palettes and other colours ===


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[(mode, "PNG") for mode in ("1", "L", "P", "RGB")],
        *[(mode, "BMP") for mode in ("1", "L", "P", "RGB")],
        *[(mode, "GIF") for mode in ("L", "P")],
        *[(mode, "TIFF") for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr")],
        *[(mode, "WEBP") for mode in ("L", "RGB")],
        *[(mode, "JPEG") for mode in ("L", "RGB", "CMYK")],
    ],
)
def test_files_look_as_pillow_shows_them(mode: str, kind: str, channels: int) -> None:
    # JPEG files of noise depend on how decoders round.
    pixels = np.add.outer(np.arange(16) * 9, np.arange(12) * 7)[..., None] + [0, 20, 5]
    content = encode(Image.fromarray(pixels.astype(np.uint8)).convert(mode), kind)
    try:
        shown = Image.open(io.BytesIO(content)).convert("RGB")
    except OSError as error:
        # Pillow 11 and earlier do not read the YCbCr that they write into TIFF files.
        pytest.skip(f"Pillow {PIL.__version__} does not read it: {error}")
    expected = np.asarray(shown.convert("L") if channels == 1 else shown, int)
    # TensorFlow's decoders of JPEG, and of grey from a colour PNG, round otherwise.
    tolerance = 6 if kind == "JPEG" else 1
    pixels = read(content, channels)
    assert np.abs(pixels - expected.reshape(pixels.shape)).max() <= tolerance


@pytest.mark.parametrize(("bits", "mode"), [(1, "1"), (2, "P"), (4, "P")])
def test_few_bits_are_read(bits: int, mode: str) -> None:
    levels = np.arange(48).reshape(8, 6) % 2**bits
    image = Image.fromarray(levels.astype(np.uint8))
    image = image.point(lambda level: 255 * level).convert("1") if mode == "1" else image
    if mode == "P":
        image.putpalette([i * 16 for i in range(2**bits) for _ in range(3)])
    content = encode(image, "PNG", **({} if mode == "1" else {"bits": bits}))
    assert content[24] == bits
    scale = 255 if mode == "1" else 16
    np.testing.assert_array_equal(read(content)[..., 0], levels * scale)


def ramp(largest: int) -> np.ndarray:
    return np.linspace(0, largest, 256).reshape(16, 16).astype(np.uint16)


def png16(values: np.ndarray, colour_type: int) -> bytes:
    """A PNG file of 16 bits, `[h, w, channels]`; Pillow writes none in colour."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(("colour_type", "n"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_the_upper_8_of_16_bits_are_taken(colour_type: int, n: int) -> None:
    values = np.repeat(ramp(65535)[..., None], n, axis=-1)
    if n in (2, 4):
        values[..., -1] = 65535
    for channels in (1, 3):
        pixels = read(png16(values, colour_type), channels)
        np.testing.assert_array_equal(pixels, np.repeat(ramp(65535)[..., None] >> 8, channels, -1))


@pytest.mark.parametrize("largest", [100, 255, 1023, 4095, 16383])
@pytest.mark.parametrize(("colour_type", "n"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_of_which_few_are_used_are_refused(
    tmp_path: Path, colour_type: int, n: int, largest: int
) -> None:
    values = np.repeat(ramp(largest)[..., None], n, axis=-1)
    path = tmp_path / "scan.png"
    path.write_bytes(png16(values, colour_type))
    with pytest.raises(UnreadableImageError, match=r"has 16 bits .* largest value .* of 65535"):
        read(path.read_bytes())
    # The header does not show it.
    _, is_certain = read_header(path)
    assert not is_certain


def test_16_bits_of_a_black_image_are_black() -> None:
    assert (read(png16(np.zeros((4, 4, 1)), 0)) == 0).all()


def test_grey_of_16_bits_in_a_tiff_is_as_in_a_png() -> None:
    content = encode(Image.fromarray(ramp(65535)), "TIFF")
    np.testing.assert_array_equal(read(content)[..., 0], ramp(65535) >> 8)
    with pytest.raises(UnreadableImageError, match="its largest value is 4095 of 65535"):
        read(encode(Image.fromarray(ramp(4095)), "TIFF"))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_values_that_are_no_brightness_are_refused(dtype: str) -> None:
    content = encode(Image.fromarray(ramp(255).astype(dtype)), "TIFF")
    with pytest.raises(UnreadableImageError, match=r"32 bits per channel .*: convert it to 8"):
        read(content)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (6, 5), (level, level, level)) for level in (200, 10)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(read(content) - 200).max() <= 1


# === What is refused ===


def test_an_image_of_too_many_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (50, 40)).save(path)
    for most in (1999, 500):  # Pillow itself warns of the first, and refuses the second.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        for attempt in (lambda: read_header(path), lambda: naming_decode(path)):
            with (
                pytest.raises(UnreadableImageError, match=rf"bomb\.png .*more than {most:,} pix"),
                pytest.MonkeyPatch.context() as patch,
            ):
                patch.setattr("warnings.warn", lambda *_, **__: None)
                attempt()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert naming_decode(path).shape == (40, 50, 1)


def naming_decode(path: Path) -> np.ndarray:
    with naming(path):
        return decode(path.read_bytes(), 1)


@pytest.mark.parametrize("content", [b"", b"\0", b"<!DOCTYPE html>", b"%PDF-1.4", b"\x89PNG\r\n"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(content)
    for attempt in (read_header, naming_decode):
        with pytest.raises(UnreadableImageError, match=r"1\.png is broken, or not an image") as e:
            attempt(path)
        assert "BytesIO" not in str(e.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_the_header_shows_that_a_file_is_cut(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cut"
    whole = encode(Image.fromarray(RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)), kind)
    path.write_bytes(whole)
    _, is_certain = read_header(path)
    assert is_certain or kind == "BMP"
    path.write_bytes(whole[: len(whole) // 2])
    try:
        _, is_certain = read_header(path)
    except UnreadableImageError:
        return
    assert not is_certain


def test_avif_is_read_if_pillow_can() -> None:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = encode(Image.new("RGB", (8, 8), (200, 100, 50)), "AVIF")
    assert np.abs(read(content, 3) - [200, 100, 50]).max() <= 6
