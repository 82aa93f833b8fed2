"""What is rendered: colours, the ground, and drawings that are not square."""

import sys

import numpy as np
import pytest

from tfmeta.data.svg_rendering import render

DISC = '<svg viewBox="0 0 8 8" xmlns="http://www.w3.org/2000/svg">{}</svg>'


def test_a_missing_renderer_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tfmeta\[emoji\]'"):
        render(DISC.format(""), 8, 3)


class TestRender:
    @pytest.fixture(autouse=True)
    def _needs_the_renderer(self) -> None:
        pytest.importorskip("resvg_py", reason="resvg-py is not installed")

    def test_colours_are_on_white(self) -> None:
        square = '<path fill="#f00" d="M2 2h4v4h-4z"/>'
        expected = np.full((8, 8, 3), 255, np.uint8)
        expected[2:6, 2:6] = 255, 0, 0
        np.testing.assert_array_equal(render(DISC.format(square), 8, 3), expected)

    def test_edges_are_averages(self) -> None:
        # Half a pixel of black on white.
        image = render(DISC.format('<path d="M2 2h3.5v4h-3.5z"/>'), 8, 1)
        assert image[3, :, 0].tolist() == [255, 255, 0, 0, 0, 128, 255, 255]

    def test_half_transparent_is_laid_on_white(self) -> None:
        image = render(DISC.format('<path d="M0 0h8v8h-8z" fill-opacity=".5"/>'), 8, 1)
        assert set(np.unique(image)) <= {127, 128}

    def test_the_current_colour_is_black(self) -> None:
        svg = DISC.format('<path fill="currentColor" d="M0 0h8v8h-8z"/>')
        assert render(svg, 8, 1).max() == 0

    def test_what_is_not_square_is_neither_stretched_nor_cut_off(self) -> None:
        wide = '<svg viewBox="0 0 8 4" xmlns="http://www.w3.org/2000/svg">'
        image = render(f'{wide}<path d="M0 0h8v4h-8z"/></svg>', 8, 1)[..., 0]
        assert (image[2:6] == 0).all()
        assert (image[[0, 1, 6, 7]] == 255).all()

    def test_text_does_not_depend_on_the_fonts_of_the_system(self) -> None:
        assert render(DISC.format('<text y="8">A</text>'), 8, 1).min() == 255

    def test_what_is_no_svg_is_refused(self) -> None:
        with pytest.raises(ValueError):
            render("no SVG", 8, 3)
