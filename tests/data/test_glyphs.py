"""The glyph data set is the published one, and says so if it is not."""

import warnings
from pathlib import Path

import numpy as np
import PIL
import pytest

from tfmeta.data import glyphs, load

# Of the few glyphs that the default tier draws.
FEW_DIGESTS = {
    "train": "c0b70e1373d67a3c6c1de8dcc8bed9752328b254594b3af4419a64612428b3ba",
    "validation": "fe85c2af48405f804ccf0b4a2d56baf53cc5687e83308d8513b745c25dda4efa",
    "test": "c0cd425ee7988841d722483210fed48d25e194b2cb771cb4d5a4f66deac15cb9",
    "all": "59f39d98a3181f51245e01f611f6e821ae1a01163c29aa36c3a9acb61c19397e",
}


@pytest.mark.large
@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_the_images_are_those_of_the_published_numbers(glyphs_dir: Path, split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        data = load("glyphs", split=split, data_dir=glyphs_dir)
    assert len(data) == {"train": 910, "validation": 130, "test": 260, "all": 1300}[split]


@pytest.fixture
def few(few_glyphs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the few glyphs, as if they were the published ones."""
    for split, digest in FEW_DIGESTS.items():
        monkeypatch.setitem(glyphs.PUBLISHED_DIGESTS, split, digest)
    return few_glyphs


@pytest.mark.skipif(
    PIL.__version__.startswith("10."), reason="Pillow 10 draws some of the glyphs otherwise."
)
@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_few_images_are_drawn_as_ever(few: Path, split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        data = load("glyphs", split=split, data_dir=few)
    assert len(data) == {"train": 70, "validation": 10, "test": 20, "all": 100}[split]


def test_images_drawn_by_other_fonts_are_loaded_with_a_warning(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One pixel of one image, as another version of Pillow may draw it.
    from tfmeta.data.sources import glyphs as source

    original = source.read_classes

    def redrawn(*arguments: object) -> tuple[np.ndarray, np.ndarray]:
        x, y = original(*arguments)
        x[-1, 14, 14] ^= 1
        return x, y

    monkeypatch.setattr(source, "read_classes", redrawn)
    with pytest.warns(RuntimeWarning, match=r"differ from .*published numbers .*Pillow \d"):
        data = load("glyphs", split="validation", data_dir=few)
    assert len(data) == 10


def test_the_digest_depends_on_images_their_order_and_their_classes() -> None:
    x = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    y = np.array([0, 1])
    digests = {
        glyphs.digest(x, y, ["a", "b"]),
        glyphs.digest(x[::-1], y, ["a", "b"]),
        glyphs.digest(x, y[::-1], ["a", "b"]),
        glyphs.digest(x, y, ["a", "c"]),
    }
    assert len(digests) == 4
    assert glyphs.digest(x.copy(), y.astype(np.int32), ("a", "b")) in digests


def test_a_directory_given_for_reading_stays_as_it_is(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(few))
    data = load("glyphs", split="validation", data_dir=tmp_path)
    assert len(data) == 10
    assert list(tmp_path.iterdir()) == []
