"""Chooses and draws the characters of the glyph data set.

The characters of many scripts are drawn in those font faces of matplotlib's that have them.
Characters that look alike (Latin A, Greek Α, Cyrillic А; o, O, 0) are one class, found by comparing
the drawings themselves.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import rotate

IMAGE_SIZE = 28
IMAGES_PER_CLASS = 20
# Ink stays inside this box, which leaves one pixel of paper on every side.
BOX = IMAGE_SIZE - 2
MIN_FACES = 4
FONT_SIZE = 80
# Smaller ink, such as dots and accents, would be enlarged to a blot.
MIN_INK = FONT_SIZE // 4
# Shapes are compared on a grid this coarse because detail that is lost on it is hardly legible at
# 28x28 either: the emoticons, for example, become one class.
THUMBNAIL_SIZE = 14
# Largest cosine similarity between thumbnails of two classes. Chosen by eye: above it many pairs
# differ by an accent or a thin stroke only, below it most pairs are told apart at a glance.
MAX_SIMILARITY = 0.92
# A turn of a drawing by at most this much makes no new class, because jitter turns and slants.
TURN_DEGREES = 10
# Classes are shared out evenly over pages of this many code points, about one script each.
PAGE = 128
MAX_TURN, MAX_SHEAR, MAX_STRETCH, MIN_FILL, MAX_SHIFT = np.deg2rad(7), 0.1, 0.1, 0.8, 2.0


def load_faces() -> tuple[list[ImageFont.FreeTypeFont], dict[int, list[int]]]:
    """Opens matplotlib's text fonts and finds the characters that enough of them can draw.

    Returns:
        The faces; and for every letter, number or symbol that at least `MIN_FACES` of them have,
        in code point order, the positions of those faces.
    """
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    # Other fonts mislead: LastResort has a placeholder for every code point, and the charmaps of
    # Computer Modern, STIXNonUni and STIXSiz do not follow Unicode.
    families = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
    styles = ("", "-*", "Bol", "BolIta", "Italic")
    paths = sorted({p for f in families for s in styles for p in folder.glob(f"{f}{s}.ttf")})
    coverage: dict[int, list[int]] = {}
    for face, path in enumerate(paths):
        for point in FT2Font(str(path)).get_charmap():
            if unicodedata.category(chr(point))[0] in "LNS":
                coverage.setdefault(point, []).append(face)
    # Use the basic layout: the other needs libraqm, which not every system has.
    layout = ImageFont.Layout.BASIC
    fonts = [ImageFont.truetype(str(path), FONT_SIZE, layout_engine=layout) for path in paths]
    return fonts, {p: coverage[p] for p in sorted(coverage) if len(coverage[p]) >= MIN_FACES}


def cut_out(font: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """Draws one character, ink 255 on 0, cropped to its ink.

    Args:
        font: ImageFont.FreeTypeFont. The face to draw in.
        character: str. The character.

    Returns:
        The drawing, or None if the face draws nothing for it.
    """
    left, top, right, bottom = font.getbbox(character)
    canvas = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(canvas).text((-left, -top), character, fill=255, font=font)
    box = canvas.getbbox()
    return canvas.crop(box) if box else None


def thumbnail(ink: Image.Image) -> np.ndarray:
    """Reduces a drawing, scaled to the box as in the data set, to a vector for comparison.

    Args:
        ink: Image. A drawing from `cut_out`.

    Returns:
        float32 `[THUMBNAIL_SIZE ** 2]`, of unit length.
    """
    side = round(max(ink.size) * IMAGE_SIZE / BOX)
    square = Image.new("L", (side, side))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    small = square.resize((THUMBNAIL_SIZE,) * 2, Image.Resampling.BILINEAR)
    vector = np.asarray(small, np.float32).ravel()
    return vector / np.linalg.norm(vector)


def turn_both_ways(thumbnails: np.ndarray) -> np.ndarray:
    """Turns thumbnails by half of `TURN_DEGREES`, to the left and to the right.

    Comparing all turned thumbnails with each other compares drawings at 0 and ±`TURN_DEGREES`
    degrees. Each has been turned, so all are equally soft, and it does not matter which of two
    characters comes first.

    Args:
        thumbnails: float32 `[drawings, pixels]`. Vectors as `thumbnail` returns them.

    Returns:
        float32 `[drawings * 2, pixels]`, of unit length. The two of a drawing are neighbours.
    """
    grid = thumbnails.reshape(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    turned = [
        rotate(grid, angle, axes=(1, 2), reshape=False, order=1)
        for angle in (-TURN_DEGREES / 2, TURN_DEGREES / 2)
    ]
    vectors = np.stack(turned, axis=1).reshape(-1, thumbnails.shape[1])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def choose_distinct(thumbnails: Mapping[int, np.ndarray], count: int) -> list[int]:
    """Chooses characters of which no two look alike, from as many scripts as possible.

    The letters come first, then the numbers and the symbols (so that S is kept and not $), each in
    code point order. A character is kept if none of its drawings, in any face, resembles a drawing
    of a kept character, in any face: an italic of one may be the upright of another. Of the kept
    characters, the first of every page of code points is chosen, then the second, and so on.

    Args:
        thumbnails: mapping from int to float32 `[faces, pixels]`. The thumbnails of each code
            point.
        count: int. How many to choose.

    Returns:
        `count` code points in ascending order.

    Raises:
        ValueError: If there are fewer than `count` distinct characters.
    """
    pages: dict[tuple[str, int], list[int]] = {}
    for point in sorted(thumbnails):
        pages.setdefault((unicodedata.category(chr(point))[0], point // PAGE), []).append(point)
    ranked: list[tuple[int, int]] = []
    kept = np.zeros((0, THUMBNAIL_SIZE**2), np.float32)
    for _, page in sorted(pages.items()):
        # Use one large matrix product per page: one per character would take several times as long.
        drawings = [turn_both_ways(thumbnails[point]) for point in page]
        similarity = (kept @ np.concatenate(drawings).T).max(axis=0, initial=-1)
        starts = np.cumsum([0] + [len(d) for d in drawings[:-1]])
        fresh, rank = kept[:0], 0
        similarity = np.maximum.reduceat(similarity, starts)
        for point, drawn, nearest in zip(page, drawings, similarity, strict=True):
            if max(nearest, (fresh @ drawn.T).max(initial=-1)) <= MAX_SIMILARITY:
                fresh = np.concatenate([fresh, drawn])
                ranked.append((rank, point))
                rank += 1
        kept = np.concatenate([kept, fresh])
    if len(ranked) < count:
        raise ValueError(
            f"Expected at least {count} distinct characters in matplotlib's fonts, found "
            f"{len(ranked)} (matplotlib {matplotlib.__version__}, {matplotlib.get_data_path()}). "
            "Install a matplotlib wheel with its DejaVu and STIXGeneral fonts."
        )
    return sorted(point for _, point in sorted(ranked)[:count])


def choose_characters(
    fonts: Sequence[ImageFont.FreeTypeFont], coverage: Mapping[int, Sequence[int]], count: int
) -> list[int]:
    """Chooses the characters that are the classes of the data set.

    Args:
        fonts: sequence of FreeTypeFont. The faces.
        coverage: mapping from int to ints. The positions of the faces that have each candidate.
        count: int. How many to choose.

    Returns:
        `count` code points in ascending order.

    Raises:
        ValueError: If there are fewer than `count` distinct characters.
    """
    thumbnails = {}
    for point, faces in coverage.items():
        inks = [cut_out(fonts[face], chr(point)) for face in faces]
        if all(ink and max(ink.size) >= MIN_INK for ink in inks):
            thumbnails[point] = np.stack([thumbnail(ink) for ink in inks if ink])
    return choose_distinct(thumbnails, count)


def jitter(ink: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Puts a drawing on paper, slightly turned, slanted, stretched, shrunk and shifted.

    Args:
        ink: Image. A drawing from `cut_out`.
        rng: np.random.Generator. The source of randomness.

    Returns:
        uint8 `[IMAGE_SIZE, IMAGE_SIZE, 1]`, ink 0 on paper 255, with no ink on the border.
    """
    turn, shear, stretch = rng.uniform(-1, 1, 3) * (MAX_TURN, MAX_SHEAR, MAX_STRETCH)
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, -sin], [sin, cos]]) @ [[1 + stretch, shear], [0, 1]]
    rows, columns = np.nonzero(np.asarray(ink))
    centres = matrix @ (np.stack([columns, rows]) + 0.5)
    # Bilinear resampling spreads a pixel of ink by one pixel in every direction.
    spread = np.abs(matrix).sum(axis=1)
    low, high = centres.min(axis=1) - spread, centres.max(axis=1) + spread
    scale = rng.uniform(MIN_FILL, 1) * BOX / (high - low).max()
    slack = np.minimum((BOX - scale * (high - low)) / 2, MAX_SHIFT)
    centre = IMAGE_SIZE / 2 + rng.uniform(-1, 1, 2) * slack
    # Pillow's affine transform does not average when it shrinks: draw larger, then average.
    oversampling = 3
    inverse = np.linalg.inv(matrix * scale * oversampling)
    origin = inverse @ (scale * (low + high) / 2 - centre) * oversampling
    image = ink.transform(
        (IMAGE_SIZE * oversampling,) * 2,
        Image.Transform.AFFINE,
        (*inverse[0], origin[0], *inverse[1], origin[1]),
        Image.Resampling.BILINEAR,
    )
    return 255 - np.asarray(image.reduce(oversampling))[..., np.newaxis]


def draw_class(
    fonts: Sequence[ImageFont.FreeTypeFont], faces: Sequence[int], point: int
) -> Iterator[np.ndarray]:
    """Draws the images of one class, taking its faces in turn.

    Args:
        fonts: sequence of FreeTypeFont. All faces.
        faces: sequence of int. The positions of the faces that have the character.
        point: int. The character's code point. It seeds the jitter, with the image's number.

    Yields:
        `IMAGES_PER_CLASS` images as `jitter` returns them.
    """
    inks = [cut_out(fonts[face], chr(point)) for face in faces]
    for number in range(IMAGES_PER_CLASS):
        ink = inks[number % len(inks)]
        assert ink is not None  # choose_characters takes no character with a blank drawing.
        yield jitter(ink, np.random.default_rng((point, number)))
