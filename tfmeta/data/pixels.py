"""Transparency and grey, by the same whole numbers for NumPy arrays and for tensors.

A servable computes them in its graph, the rest of tfmeta with NumPy, and both must agree.
"""

from __future__ import annotations

from typing import Any


def on_white(rgba: Any) -> Any:
    """Lays an image with transparency on a white ground.

    Args:
        rgba: int32 `[h, w, 4]`, array or tensor. Red, green, blue and opacity, 0 to 255.

    Returns:
        int32 `[h, w, 3]`, rounded to the nearest.
    """
    colour, opacity = rgba[..., :3], rgba[..., 3:]
    return (colour * opacity + 255 * (255 - opacity) + 127) // 255


def to_grey(rgb: Any) -> Any:
    """Computes the brightness of colours, as Pillow does (ITU-R 601-2).

    Args:
        rgb: int32 `[h, w, 3]`, array or tensor. 0 to 255.

    Returns:
        int32 `[h, w, 1]`, rounded to the nearest.
    """
    weighted = rgb[..., :1] * 19595 + rgb[..., 1:2] * 38470 + rgb[..., 2:] * 7471
    return (weighted + 32768) // 65536
