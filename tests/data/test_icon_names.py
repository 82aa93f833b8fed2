"""Which icons mean the same."""

from pathlib import Path

import pytest
from made_up_packages import write_package

from tfmeta.data.icon_names import COMPOUNDS, SYNONYMS, class_of, icons_of_classes
from tfmeta.data.iconify import IconSet


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("home", "home"),
        ("house-outline", "home"),
        ("home-24-filled", "home"),
        ("home-outline-2", "home"),
        ("circle-check", "check-circle"),
        ("check-circle-fill", "check-circle"),
        ("folder-add", "folder-plus"),
        ("eye-slash", "eye-off"),
        ("log-out", "logout"),
        ("exclamation-triangle", "warning"),
        ("outline", "outline"),  # Nothing would be left.
        ("format-bold", "bold-format"),  # No style of this set.
        ("twitter", None),
        ("logo-anything", None),
        ("delete", None),
    ],
)
def test_classes_of_names(name: str, expected: str | None) -> None:
    assert class_of(name, set()) == expected


def test_the_longest_style_of_a_set_is_taken_off() -> None:
    assert class_of("home-bold-duotone", {"bold", "bold-duotone"}) == "home"
    assert class_of("home-bold", {"bold"}) == "home"


def test_no_synonym_needs_a_second_look_up() -> None:
    assert not set(SYNONYMS) & set(SYNONYMS.values())
    for key, value in COMPOUNDS.items():
        assert key == "-".join(sorted({SYNONYMS.get(word, word) for word in key.split("-")}))
        assert value not in COMPOUNDS
        assert value == "-".join(sorted(value.split("-")))


def test_of_each_set_the_plainest_name_is_taken_and_no_icon_twice(tmp_path: Path) -> None:
    one = ["home-outline", "house", "home-2", "star-bold"]
    write_package(tmp_path, "one", "1", dict.fromkeys(one, "<g/>"), styles={"bold": "Bold"})
    write_package(
        tmp_path, "two", "1", {"building": "<g/>"}, aliases={"home": {"parent": "building"}}
    )
    sets = {name: IconSet(tmp_path, name) for name in ("one", "two")}
    assert icons_of_classes(sets) == {
        "building": {"two": "building"},
        "home": {"one": "house"},
        "star": {"one": "star-bold"},
    }
