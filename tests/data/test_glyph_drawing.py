"""Invariants of the glyphs: which characters are chosen, and how they are drawn."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image

from tfmeta.data import glyph_drawing
from tfmeta.data.glyphs import NUM_CLASSES, Glyphs


def fingerprint() -> str:
    """A hash of a choice among some of the characters, and of some of the drawings."""
    fonts, coverage = glyph_drawing.load_faces()
    candidates = {point: coverage[point] for point in list(coverage)[::6]}
    chosen = glyph_drawing.choose_characters(fonts, candidates, 300)
    digest = hashlib.sha256(repr(chosen).encode())
    for point in chosen[::10]:
        for image in glyph_drawing.draw_class(fonts, candidates[point], point):
            digest.update(image.tobytes())
    return digest.hexdigest()


@pytest.fixture(scope="session", params=["few", pytest.param("all", marks=pytest.mark.large)])
def reloaded(request: pytest.FixtureRequest) -> Glyphs:
    if request.param == "few":
        return request.getfixturevalue("few_glyphs_builder")
    return Glyphs(data_dir=request.getfixturevalue("glyphs_dir"))


@pytest.fixture(scope="session")
def data(reloaded: Glyphs) -> tuple[np.ndarray, np.ndarray]:
    batch = reloaded.as_dataset(split="all", batch_size=-1)
    return batch["image"].numpy(), batch["label"].numpy()


@pytest.fixture(scope="session")
def images(data: tuple[np.ndarray, np.ndarray], points: list[int]) -> np.ndarray:
    """All images, ordered by class [classes, images, 28, 28]."""
    x, y = data
    return x[np.argsort(y, kind="stable")].reshape(len(points), -1, 28, 28)


def points_of(builder: Glyphs) -> list[int]:
    return [int(n.split()[0][2:], 16) for n in builder.info.features["label"].names]


@pytest.fixture(scope="session")
def points(reloaded: Glyphs) -> list[int]:
    return points_of(reloaded)


def test_every_class_has_twenty_images(
    data: tuple[np.ndarray, np.ndarray], points: list[int]
) -> None:
    assert np.bincount(data[1]).tolist() == [20] * len(points)
    assert NUM_CLASSES >= 1000


def test_images_of_a_class_all_differ(images: np.ndarray) -> None:
    for of_class in images:
        assert len(np.unique(of_class.reshape(20, -1), axis=0)) == 20


def test_names_survive_a_reload(reloaded: Glyphs) -> None:
    label = reloaded.info.features["label"]
    names = label.names
    assert len(set(names)) == label.num_classes
    assert "U+0041 LATIN CAPITAL LETTER A" in names


@pytest.mark.large  # The few have three.
def test_many_scripts_are_represented(glyphs_dir: Path) -> None:
    names = Glyphs(data_dir=glyphs_dir).info.features["label"].names
    scripts = [name.split()[1] for name in names]
    for script in (
        *("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW"),
        *("ARABIC", "LAO", "GEORGIAN", "CANADIAN"),
    ):
        assert scripts.count(script) >= 15, script


def test_ink_is_dark_on_light_paper(images: np.ndarray) -> None:
    assert images.dtype == np.uint8
    assert np.median(images) == 255
    assert images.min(axis=(2, 3)).max() < 128  # Every image has ink.


def test_ink_is_not_cut_off(images: np.ndarray) -> None:
    assert (images[..., [0, -1], :] == 255).all()
    assert (images[..., [0, -1]] == 255).all()


def test_ink_fills_the_box(images: np.ndarray) -> None:
    def extent(inked: np.ndarray) -> np.ndarray:  # From the first to the last, gaps included.
        return inked.shape[-1] - inked.argmax(axis=-1) - inked[..., ::-1].argmax(axis=-1)

    ink = images < 255
    longest = np.maximum(*(extent(np.asarray(ink.any(axis=axis))) for axis in (2, 3)))
    # Ink that is upscaled most is softest: up to a pixel at each end may be too faint to count.
    assert longest.min() >= glyph_drawing.BOX * glyph_drawing.MIN_FILL - 2


def _bitmaps(font: FT2Font, points: list[int]) -> tuple[list[int], np.ndarray]:
    """The drawings of the points that the font has, by matplotlib's renderer and not Pillow's."""
    known = set(font.get_charmap())
    present, drawings = [], []
    for point in points:
        if point not in known:
            continue
        font.clear()
        font.set_text(chr(point))
        font.draw_glyphs_to_bitmap()
        bitmap = np.array(font.get_image())
        rows, columns = np.nonzero(bitmap)
        bitmap = bitmap[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        side = max(bitmap.shape)
        square = np.zeros((side, side), np.uint8)
        top, left = (side - bitmap.shape[0]) // 2, (side - bitmap.shape[1]) // 2
        square[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap
        drawings.append(np.asarray(Image.fromarray(square).resize((32, 32))).ravel() > 127)
        present.append(point)
    return present, np.array(drawings, np.float32)


def _coinciding(points: list[int]) -> list[tuple[str, str, str]]:
    """Pairs of which the inks overlap by 90 % in one of the faces, compared pixel by pixel."""
    pairs = []
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for family in ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral"):
        for style in ("", "-Bold", "-Oblique", "-Italic", "Bol", "Italic"):
            path = folder / f"{family}{style}.ttf"
            if not path.exists():
                continue
            font = FT2Font(str(path))
            font.set_size(64, 72)
            present, ink = _bitmaps(font, points)
            common, size = ink @ ink.T, ink.sum(axis=1)
            overlap = np.triu(common / (size[:, None] + size - common), 1)
            for a, b in zip(*np.nonzero(overlap > 0.9), strict=True):
                pairs.append((path.stem, chr(present[a]), chr(present[b])))
    return pairs


@pytest.mark.large  # Some look alike only by way of characters that are not among the few.
def test_look_alikes_are_one_class(glyphs_dir: Path) -> None:
    chosen = {chr(point) for point in points_of(Glyphs(data_dir=glyphs_dir))}
    for family in ("AΑАꓮ", "OoΟοОо0", "cCсСϲ", "IlΙІ|", "SsЅѕ$", "xXхХΧ", "TΤТ", "–—−"):
        assert len(chosen & set(family)) <= 1, family
    assert "A" in chosen  # The first of its family stands for it.


def test_no_two_classes_coincide_in_a_face(points: list[int]) -> None:
    # The look-alike that is not a class shows that this comparison would find one.
    assert ("DejaVuSans", "A", "А") in _coinciding([ord("A"), ord("А")])
    assert _coinciding(points) == []


def test_blank_characters_are_no_candidates(points: list[int]) -> None:
    fonts, coverage = glyph_drawing.load_faces()
    assert min(map(len, coverage.values())) >= glyph_drawing.MIN_FACES
    assert glyph_drawing.cut_out(fonts[0], "\u2800") is None  # The empty Braille pattern.
    assert 0x2800 not in points


@pytest.mark.large  # Which of them look too much like others depends on all.
def test_blank_and_tiny_characters_are_not_chosen(glyphs_dir: Path) -> None:
    points = points_of(Glyphs(data_dir=glyphs_dir))
    assert not {0x2800, ord("´"), ord("¨")} & set(points)


def test_two_builds_are_identical(images: np.ndarray, points: list[int]) -> None:
    fonts, coverage = glyph_drawing.load_faces()
    for label in range(0, len(points), 25):
        drawn = np.stack(
            list(glyph_drawing.draw_class(fonts, coverage[points[label]], points[label]))
        )
        order = lambda x: sorted(i.tobytes() for i in x)  # noqa: E731 (TFDS shuffles images.)
        assert order(drawn[..., 0]) == order(images[label])


@pytest.mark.large
def test_two_processes_choose_and_draw_the_same() -> None:
    here = Path(__file__)
    paths = [str(here.parents[2]), str(here.parent)]
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import test_glyph_drawing; print(test_glyph_drawing.fingerprint())",
        ],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == fingerprint()


def test_too_few_characters_is_an_error() -> None:
    one_look = np.eye(1, glyph_drawing.THUMBNAIL_SIZE**2, 100, dtype=np.float32)
    with pytest.raises(ValueError, match=r"at least 2 distinct.*found 1 .*Install"):
        glyph_drawing.choose_distinct({65: one_look, 66: one_look}, 2)
