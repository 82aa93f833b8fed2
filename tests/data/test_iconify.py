"""Sets of drawings in the Iconify format, and what is said if they are missing."""

from pathlib import Path

import pytest
from made_up_packages import circle, write_package

from tfmeta.data.iconify import IconSet, Package, check_installed

PACKAGES = [
    Package("dots", "1.2.3", "MIT", "Dot", "dots"),
    Package("bars", "2.0.0", "ISC", "Bar", "bars"),
]


@pytest.fixture
def icons(tmp_path: Path) -> IconSet:
    write_package(
        tmp_path,
        "dots",
        "1.2.3",
        {
            "dot": circle(1),
            "wide": {"body": "<g/>", "width": 30, "left": 2},
            "old": {"body": "<g/>", "hidden": True},
        },
        aliases={
            "point": {"parent": "dot"},
            "mirrored": {"parent": "wide", "hFlip": True},
            "older": {"parent": "old"},
        },
        codes={"26ab": "dot"},
        groups={"Symbols": ["dot", "wide"]},
        styles={"bold": "Bold", "": "Regular"},
        width=20,
    )
    return IconSet(tmp_path, "dots")


def test_names_are_those_of_drawings_that_are_shown_as_they_are(icons: IconSet) -> None:
    assert icons.names == {"dot": "dot", "wide": "wide", "point": "dot"}


def test_codes_groups_and_styles(icons: IconSet) -> None:
    assert icons.codes == {"26ab": "dot"}
    assert icons.groups == {"dot": "Symbols", "wide": "Symbols"}
    assert icons.styles == {"bold"}


def test_a_drawing_has_the_box_of_its_own_of_the_set_or_of_the_format(icons: IconSet) -> None:
    # 16 is the size of the format, 20 the width of the set.
    assert 'viewBox="0 0 20 16"' in icons.svg("dot")
    assert 'viewBox="2 0 30 16"' in icons.svg("wide")
    assert icons.svg("dot").endswith(f"{circle(1)}</svg>")


def test_a_missing_package_is_named_with_the_command(tmp_path: Path, icons: IconSet) -> None:
    check_installed(tmp_path, PACKAGES[:1], "emoji")
    with pytest.raises(ValueError) as caught:
        check_installed(tmp_path, PACKAGES, "emoji")
    message = str(caught.value)
    assert f"'emoji' is drawn from npm packages, which are not all in {tmp_path}: bars." in message
    assert message.endswith(
        f"npm install --ignore-scripts --prefix {tmp_path} "
        "@iconify-json/dots@1.2.3 @iconify-json/bars@2.0.0"
    )


def test_another_version_is_refused(tmp_path: Path) -> None:
    write_package(tmp_path, "bars", "2.0.1", {})
    with pytest.raises(ValueError, match=r": bars 2\.0\.0 \(there is 2\.0\.1\)\."):
        check_installed(tmp_path, PACKAGES[1:], "icons")


def test_a_folder_with_a_space_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--prefix '.*/my folder' @"):
        check_installed(tmp_path / "my folder", PACKAGES, "icons")
