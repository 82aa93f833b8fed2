"""The glyph data set is the published one, and says so if it is not."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from tfmeta.data import glyphs, load


@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_the_images_are_those_of_the_published_numbers(glyphs_dir: Path, split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        data = load("glyphs", split=split, data_dir=glyphs_dir)
    assert len(data) == {"train": 910, "validation": 130, "test": 260, "all": 1300}[split]


def test_images_drawn_by_other_fonts_are_loaded_with_a_warning(
    glyphs_dir: Path, monkeypatch: pytest.MonkeyPatch
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
        data = load("glyphs", split="validation", data_dir=glyphs_dir)
    assert len(data) == 130


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
    glyphs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensorflow_datasets.core.constants.DATA_DIR", str(glyphs_dir))
    data = load("glyphs", split="validation", data_dir=tmp_path)
    assert len(data) == 130
    assert list(tmp_path.iterdir()) == []
