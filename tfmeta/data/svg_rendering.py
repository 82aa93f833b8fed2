"""Renders SVG drawings as small images."""

from __future__ import annotations

import io

import numpy as np

# Drawings are rendered larger and averaged: resvg computes filters, such as the inner shadows of
# Fluent, without antialiasing.
OVERSAMPLING = 2


def render(svg: str, size: int, channels: int) -> np.ndarray:
    """Renders a drawing on white, as large as fits.

    The renderer is resvg. CairoSVG ignores filters and gets some gradients wrong, which two thirds
    of the drawings of Fluent show, and is slower.

    Args:
        svg: str. An SVG document with a view box and no size of its own.
        size: int. Height and width of the image in pixels.
        channels: int. 1 (grey) or 3 (RGB).

    Returns:
        uint8 `[size, size, channels]`.

    Raises:
        ModuleNotFoundError: If resvg is not installed.
        ValueError: If it is no SVG.
    """
    from PIL import Image

    try:
        import resvg_py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Drawings are rendered with resvg-py, which is not installed: run "
            "pip install 'tfmeta[emoji]'."
        ) from error
    large = size * OVERSAMPLING
    # Without a size of its own, a drawing that is not square would be stretched or cut off.
    sized = svg.replace("<svg ", f'<svg width="{large}" height="{large}" ', 1)
    # Fonts of the system would make images depend on the machine.
    content = resvg_py.svg_to_bytes(svg_string=sized, background="white", skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(content))).convert("L" if channels == 1 else "RGB")
    return np.asarray(image.reduce(OVERSAMPLING)).reshape(size, size, channels)
