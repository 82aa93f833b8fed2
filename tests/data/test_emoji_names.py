"""Which emoji are classes, and which drawings are theirs."""

from pathlib import Path
from typing import Any

import pytest
from made_up_packages import write_package

from tfmeta.data.emoji_names import HUB, Emoji, drawings_of, list_emoji
from tfmeta.data.iconify import IconSet

CODES = {
    "2764-fe0f": "red-heart",  # Asks for a colour image.
    "1f436": "dog-face",
    "1f601": "beaming-face-with-smiling-eyes",
    "1f604": "grinning-face-with-smiling-eyes",
    "1f44b": "waving-hand",
    "1f44b-1f3fd": "waving-hand-medium-skin-tone",
    "0035-20e3": "keycap-5",
    "1f1eb-1f1f7": "flag-france",
    "1f3c1": "chequered-flag",
    "1f468-200d-1f33e": "man-farmer",
    "1f3fb": "light-skin-tone",  # In no group.
}
GROUPS = {
    "Smileys & Emotion": ["red-heart", *[n for n in CODES.values() if "smiling" in n]],
    "Animals & Nature": ["dog-face"],
    "People & Body": ["waving-hand", "waving-hand-medium-skin-tone", "man-farmer"],
    "Symbols": ["keycap-5"],
    "Flags": ["flag-france", "chequered-flag"],
}


@pytest.fixture
def hub(tmp_path: Path) -> IconSet:
    icons = dict.fromkeys(CODES.values(), "<g/>")
    write_package(tmp_path, HUB, "1", icons, codes=CODES, groups=GROUPS)
    return IconSet(tmp_path, HUB)


def drawings(hub: IconSet, name: str, icons: list[str], **options: Any) -> dict[str, str]:
    """The drawings that a further set has, by emoji."""
    write_package(hub.folder, name, "1", dict.fromkeys(icons, "<g/>"), **options)
    found = drawings_of(list_emoji(hub), {HUB: hub, name: IconSet(hub.folder, name)})
    return {emoji.name: names[name] for emoji, names in found.items() if name in names}


def test_emoji_of_one_code_point_without_flags_are_classes(hub: IconSet) -> None:
    assert list_emoji(hub) == [
        Emoji("red-heart", 0x2764, "Smileys & Emotion"),
        Emoji("dog-face", 0x1F436, "Animals & Nature"),
        Emoji("waving-hand", 0x1F44B, "People & Body"),
        Emoji("beaming-face-with-smiling-eyes", 0x1F601, "Smileys & Emotion"),
        Emoji("grinning-face-with-smiling-eyes", 0x1F604, "Smileys & Emotion"),
    ]


def test_the_hub_has_a_drawing_of_each(hub: IconSet) -> None:
    found = drawings_of(list_emoji(hub), {HUB: hub})
    assert found == {emoji: {HUB: emoji.name} for emoji in list_emoji(hub)}


def test_code_points_count_and_not_names(hub: IconSet) -> None:
    codes = {"2764": "heart", "1f436": "puppy"}
    found = drawings(hub, "other", ["heart", "puppy", "waving-hand"], codes=codes)
    assert found == {"red-heart": "heart", "dog-face": "puppy"}


def test_names_are_joined_in_several_spellings(hub: IconSet) -> None:
    found = drawings(hub, "other", ["redheart", "dog_face"])
    assert found == {"red-heart": "redheart", "dog-face": "dog_face"}


def test_an_alias_is_a_name(hub: IconSet) -> None:
    found = drawings(hub, "other", ["puppy"], aliases={"dog-face": {"parent": "puppy"}})
    assert found == {"dog-face": "puppy"}


def test_a_name_of_the_character_in_unicode_is_one(hub: IconSet) -> None:
    # U+2764 HEAVY BLACK HEART, U+1F44B WAVING HAND SIGN
    found = drawings(hub, "other", ["heavy-black-heart", "waving-hand-sign"])
    assert found == {"red-heart": "heavy-black-heart", "waving-hand": "waving-hand-sign"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("emojione", "grinning-face-with-smiling-eyes"),
        # U+1F601 GRINNING FACE WITH SMILING EYES is called beaming today.
        ("fxemoji", "beaming-face-with-smiling-eyes"),
    ],
)
def test_a_name_that_changed_its_emoji_is_read_as_its_set_was_named(
    hub: IconSet, name: str, expected: str
) -> None:
    found = drawings(hub, name, ["grinningfacewithsmilingeyes"])
    assert found == {expected: "grinningfacewithsmilingeyes"}


def test_a_name_that_another_set_has_for_the_same_code_point_is_one(hub: IconSet) -> None:
    write_package(hub.folder, "noto", "1", {"puppy": "<g/>"}, codes={"1f436": "puppy"})
    write_package(hub.folder, "third", "1", {"puppy": "<g/>"})
    sets = {name: IconSet(hub.folder, name) for name in (HUB, "noto", "third")}
    (found,) = (
        x
        for emoji, x in drawings_of(list_emoji(hub), sets).items()
        if emoji.code > 0x1F000 and emoji.name == "dog-face"
    )
    assert found == {HUB: "dog-face", "noto": "puppy", "third": "puppy"}


def test_fluent_is_joined_like_its_flat_version(hub: IconSet) -> None:
    write_package(hub.folder, "fluent-emoji-flat", "1", {"pup": "<g/>"}, codes={"1f436": "pup"})
    write_package(hub.folder, "fluent-emoji", "1", {"pup": "<g/>"})
    sets = {n: IconSet(hub.folder, n) for n in (HUB, "fluent-emoji-flat", "fluent-emoji")}
    found = {emoji.name: names for emoji, names in drawings_of(list_emoji(hub), sets).items()}
    assert found["dog-face"]["fluent-emoji"] == "pup"


def test_no_drawing_is_given_to_two_emoji(hub: IconSet) -> None:
    # The name of one emoji, and Unicode's name of the other.
    found = drawings(hub, "other", ["grinning-face-with-smiling-eyes"])
    assert found == {"grinning-face-with-smiling-eyes": "grinning-face-with-smiling-eyes"}
