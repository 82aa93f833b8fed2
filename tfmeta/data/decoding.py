"""Reads image files with Pillow: what a header says, and the pixels as a viewer shows them.

Pillow and NumPy are imported when the first file is read.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from tfmeta.data.pixels import on_white, to_grey

if TYPE_CHECKING:
    import numpy as np

# Suffixes of files by Pillow's name of the format. A format is read if Pillow can read it: HEIF
# only after `pillow_heif.register_heif_opener()`, AVIF with Pillow 11.3 or newer.
SUFFIXES = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}

# A 16-bit file is refused if its largest value is below this: what a viewer shows of it is nearly
# black, because only some of the bits are used.
LEAST_OF_16_BITS = 2**14

_MODES_OF_8_BITS = {
    *("1", "L", "LA", "La", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV")
}
_ORIENTATION = 274  # the tag in EXIF and TIFF


class UnreadableImageError(ValueError):
    """Raised for an image file that cannot be read. The message says which, and why."""


class Header(NamedTuple):
    """How a file is decoded.

    Attributes:
        by_tensorflow: bool. Whether TensorFlow's decoder returns the right pixels: those of a PNG
            or JPEG file in grey or RGB, with up to 8 bits per channel and without transparency.
            Others are decoded by Pillow.
        orientation: int. How the camera was held, as in EXIF: 1 (upright) to 8.
    """

    by_tensorflow: bool
    orientation: int


@functools.cache
def suffixes_of(available: frozenset[str]) -> tuple[str, ...]:
    """Lists the suffixes of these formats."""
    return tuple(s for name, group in SUFFIXES.items() if name in available for s in group)


def image_suffixes() -> tuple[str, ...]:
    """Lists the suffixes of image files that can be read here, in lower case."""
    return suffixes_of(frozenset(_formats()))


def _formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [name for name in SUFFIXES if name in Image.OPEN]


# === Headers ===


def read_header(path: Path) -> tuple[Header, bool]:
    """Reads the header of a file.

    Args:
        path: Path. The file.

    Returns:
        The header; and whether it is certain, without decoding the file, that it is not cut short
        and that its values can be shown.

    Raises:
        UnreadableImageError: If the file cannot be opened, is no image, or has too many pixels.
    """
    with naming(path), path.open("rb") as file:
        return _header(file)


def header_of(content: bytes) -> Header:
    """Reads the header of the content of a file; see `read_header`."""
    return _header(io.BytesIO(content))[0]


def _header(file: BinaryIO) -> tuple[Header, bool]:
    with _opened(file) as (image, bits):
        is_whole = _is_whole(file, image.format)
        is_plain = is_whole and _is_plain(image, bits)
        if image.format == "PNG" and "exif" not in image.info and b"eXIf" in _png_chunks(file):
            # It stands behind the pixels, where Pillow finds it after decoding.
            file.seek(0)
            with _opened(file) as (image, _):
                image.load()
                return Header(is_plain, _orientation(image)), bits <= 8
        return Header(is_plain, _orientation(image)), is_whole and bits <= 8


def _is_plain(image: Any, bits: int) -> bool:
    if image.format == "PNG":
        return bits <= 8 and image.mode in ("1", "L", "P", "RGB") and not _has_transparency(image)
    return image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB")


def _has_transparency(image: Any) -> bool:
    return (
        image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        or "transparency" in image.info
        or (image.mode == "P" and image.palette.mode.endswith("A"))
    )


def _orientation(image: Any) -> int:
    from PIL import Image

    if image.format == "TIFF":
        # Newer versions of Pillow turn TIFF files while they decode them, and delete the tag.
        value = image.tag_v2.get(_ORIENTATION, 1)
    else:
        exif = Image.Exif()
        try:
            exif.load(image.info.get("exif"))
            value = exif.get(_ORIENTATION, 1)
        except (SyntaxError, ValueError, KeyError, TypeError, OSError, struct.error):
            value = 1  # Viewers, too, show an image whose EXIF block is broken as it is stored.
    return value if value in range(1, 9) else 1


def _is_whole(file: BinaryIO, kind: str) -> bool:
    """Returns whether the end of the file shows that it is not cut short."""
    if kind == "PNG":
        return b"IEND" in _png_chunks(file)
    size = file.seek(0, os.SEEK_END)
    if kind == "WEBP":
        file.seek(4)
        return int.from_bytes(file.read(4), "little") + 8 <= size
    file.seek(max(0, size - 2))
    end = file.read()
    return (kind in ("JPEG", "MPO") and end == b"\xff\xd9") or (kind == "GIF" and end[-1:] == b";")


def _png_chunks(file: BinaryIO) -> set[bytes]:
    """Returns the names of the chunks of a PNG file that are in it to their ends."""
    size = file.seek(0, os.SEEK_END)
    at, names = 8, set[bytes]()
    while at < size:
        file.seek(at)
        head = file.read(8)
        at += 12 + int.from_bytes(head[:4], "big")
        if at <= size:
            names.add(head[4:])
    return names


# === Pixels ===


def decode(content: bytes, channels: int) -> np.ndarray:
    """Decodes an image file with Pillow, as a viewer shows it.

    It is turned upright; transparency is laid on white; of 16 bits, the upper 8 are taken; of an
    animation, the first frame.

    Args:
        content: bytes. The content of the file.
        channels: int. 1 (grey) or 3 (RGB).

    Returns:
        uint8 `[h, w, channels]`.

    Raises:
        UnreadableImageError: If it is no image, is cut short, has too many pixels, or has pixels
            that cannot be shown.
    """
    import numpy as np

    with _opened(io.BytesIO(content)) as (image, bits):
        image.load()
        image = _upright(image, _orientation(image))
        if bits > 8:
            image = _of_16_bits(image, bits)
        if image.mode not in _MODES_OF_8_BITS:
            raise UnreadableImageError(
                f"has pixels of Pillow's mode {image.mode}, which are not shown as 8 bits: convert "
                "it to 8 bits per channel"
            )
        if _has_transparency(image):
            pixels = on_white(np.asarray(image.convert("RGBA"), np.int32))
            return (to_grey(pixels) if channels == 1 else pixels).astype(np.uint8)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        return pixels.reshape(*pixels.shape[:2], channels)


def _upright(image: Any, orientation: int) -> Any:
    from PIL.Image import Transpose

    method = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
    return image if method is None else image.transpose(method)


def _of_16_bits(image: Any, bits: int) -> Any:
    """Returns an image of the upper 8 of 16 bits."""
    import numpy as np
    from PIL import Image

    is_grey = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if bits > 16 or not (is_grey or image.mode in ("RGB", "RGBA")):
        raise UnreadableImageError(
            f"has {bits} bits per channel (Pillow's mode {image.mode}): convert it to 8"
        )
    if "transparency" in image.info:
        raise UnreadableImageError(
            "has 16 bits per channel and a transparent colour: convert it to 8 bits"
        )
    # Pillow keeps 16 bits of grey; of colours, it reads the upper 8.
    values = np.asarray(image) if is_grey else np.asarray(image.convert("RGB"))
    largest = int(values.max()) * (1 if is_grey else 256)
    if largest < LEAST_OF_16_BITS and not (is_grey and largest == 0):
        raise UnreadableImageError(
            f"has 16 bits per channel, but its largest value is {'' if is_grey else 'about '}"
            f"{largest} of 65535, so that it would be nearly black: scale it to 8 bits first"
        )
    return Image.fromarray((values >> 8).astype(np.uint8)) if is_grey else image


# === Errors ===


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Puts the name of a file before the message of an `UnreadableImageError`."""
    try:
        yield
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{printable(str(what))} {error}.") from error.__cause__
    except OSError as error:
        raise UnreadableImageError(
            f"{printable(str(what))} cannot be opened: {error.strerror}."
        ) from error


def printable(text: str) -> str:
    r"""Writes the bytes of a file name that are not UTF-8 as in `caf\xe9`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[Any, int]]:
    """Opens an image, and says how many bits a channel has.

    Raises:
        UnreadableImageError: If it is no image or has too many pixels, or if the block fails in
            any way: Pillow's decoders raise many kinds of errors.
    """
    from PIL import Image

    try:
        prefix = file.read(32)
        file.seek(0)
        with Image.open(file, formats=_formats()) as image:
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and image.width * image.height > most:
                raise UnreadableImageError(_too_large(image.width, image.height, most))
            yield image, _bits(image, prefix)
    except (UnreadableImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        kinds = ", ".join(_formats())
        raise UnreadableImageError(
            f"is broken, or not an image of a kind that is read ({kinds})"
        ) from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(_too_large(None, None, Image.MAX_IMAGE_PIXELS)) from error
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImageError(f"is broken, or not an image: {cause}") from error


def _too_large(width: int | None, height: int | None, most: int) -> str:
    size = f"is too large: {width} × {height} pixels are" if width else "has"
    return (
        f"{size} more than {most:,} pixels, the bound of Pillow (Image.MAX_IMAGE_PIXELS): make it "
        "smaller"
    )


def _bits(image: Any, prefix: bytes) -> int:
    if image.format == "PNG":
        return prefix[24]
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, 1)
        return max(bits) if isinstance(bits, tuple) else bits
    return 8
