"""Joins the drawings of emoji from several sets, whose names differ."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from tfmeta.data.iconify import IconSet

# The set whose names, code points and groups are taken.
HUB = "twemoji"
# Its drawings have the names of the other set, which has code points.
NAMED_LIKE = {"fluent-emoji": "fluent-emoji-flat"}
# Sets that were named by Unicode's names of characters, when emoji had no others.
NAMED_BY_UNICODE = {"fxemoji"}
# All flags look alike in form, and are the same in every set.
LEFT_OUT_GROUPS = {"Flags"}


class Emoji(NamedTuple):
    """One emoji.

    Attributes:
        name: str. Its CLDR name, such as "red-heart".
        code: int. Its code point.
        group: str. Its Unicode group, such as "Animals & Nature".
    """

    name: str
    code: int
    group: str


def list_emoji(hub: IconSet) -> list[Emoji]:
    """Lists the emoji that consist of one code point.

    Skin tones, keycaps, families and the women and men of a profession are sequences of several,
    so that no emoji is there twice; flags are left out, too.

    Args:
        hub: IconSet. A set with code points and Unicode's groups.

    Returns:
        Emoji, sorted by code point.
    """
    found = []
    for code, name in hub.codes.items():
        points = [point for point in code.split("-") if point != "fe0f"]  # Ask for a colour image.
        group = hub.groups.get(name)
        if len(points) == 1 and group is not None and group not in LEFT_OUT_GROUPS:
            found.append(Emoji(name, int(points[0], 16), group))
    return sorted(set(found), key=lambda emoji: (emoji.code, emoji.name))


def drawings_of(emoji: list[Emoji], sets: Mapping[str, IconSet]) -> dict[Emoji, dict[str, str]]:
    """Finds the drawings of emoji.

    Sets with code points are joined by these, the others by name: the CLDR name, names that a set
    with code points has for the same emoji, or Unicode's name of the character. No drawing is
    given to two emoji.

    Args:
        emoji: list of Emoji. What to look for.
        sets: mapping from names to IconSets, with `HUB`.

    Returns:
        For each emoji its drawings: names, by set.
    """
    by_code = {name: _single_codes(icons) for name, icons in sets.items() if icons.codes}
    names = _names_by_rank(emoji, sets, by_code)
    found: dict[Emoji, dict[str, str]] = {one: {} for one in emoji}
    for name, icons in sets.items():
        codes = by_code.get(name) or by_code.get(NAMED_LIKE.get(name, ""))
        if codes:
            chosen = {one: codes[one.code] for one in emoji if one.code in codes}
        else:
            first = 1 if name in NAMED_BY_UNICODE else 0
            ranks = [names[first], *names[:first], *names[first + 1 :]]
            chosen = _choose_by_name(ranks, icons)
        for one, drawing in chosen.items():
            if drawing in icons.names:
                found[one][name] = icons.names[drawing]
    return found


def _single_codes(icons: IconSet) -> dict[int, str]:
    """Returns the names of the emoji of one code point."""
    codes = {}
    for code, name in icons.codes.items():
        points = [point for point in code.split("-") if point != "fe0f"]
        if len(points) == 1 and name in icons.names:
            codes[int(points[0], 16)] = name
    return codes


def _names_by_rank(
    emoji: list[Emoji], sets: Mapping[str, IconSet], by_code: Mapping[str, Mapping[int, str]]
) -> list[list[tuple[str, Emoji]]]:
    """Returns CLDR names, Unicode's names, and other names, each with its emoji."""
    others: dict[str, set[Emoji]] = {}
    of_code = {one.code: one for one in emoji}
    for set_name, codes in by_code.items():
        of_drawing = {
            sets[set_name].names[name]: of_code[code]
            for code, name in codes.items()
            if code in of_code
        }
        for name, drawing in sets[set_name].names.items():
            if drawing in of_drawing:
                others.setdefault(_plain(name), set()).add(of_drawing[drawing])
    return [
        [(_plain(one.name), one) for one in emoji],
        [(_plain(unicodedata.name(chr(one.code), "")), one) for one in emoji],
        [(name, one) for name, ones in sorted(others.items()) if len(ones) == 1 for one in ones],
    ]


def _choose_by_name(ranks: list[list[tuple[str, Emoji]]], icons: IconSet) -> dict[Emoji, str]:
    """Gives each drawing to one emoji at most, by the names of the first rank first."""
    drawings: dict[str, str] = {}
    for name in sorted(icons.names, key=lambda name: (name != icons.names[name], name)):
        drawings.setdefault(_plain(name), icons.names[name])
    chosen: dict[Emoji, str] = {}
    given: set[str] = set()
    for rank in ranks:
        for name, one in rank:
            if name in drawings and one not in chosen and drawings[name] not in given:
                chosen[one] = drawings[name]
                given.add(drawings[name])
    return chosen


def _plain(name: str) -> str:
    """Returns a name in small letters and digits only: sets write "dog-face", "dogface"."""
    return re.sub("[^a-z0-9]", "", name.lower())
