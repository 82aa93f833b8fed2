"""Joins the icons of many families by their names, which differ in styles, order and synonyms."""

from __future__ import annotations

from collections.abc import Mapping

from tfmeta.data.iconify import IconSet

# Endings that say how an icon is drawn, or that it is a variant. A set declares others itself.
STYLES = {
    *("outline", "outlined", "line", "linear", "fill", "filled", "solid", "duotone", "twotone"),
    *("regular", "alt", "o", "1", "2", "01", "02", "12", "16", "20", "24", "28", "32", "48"),
}
# Words that mean the same thing, of which one is kept: otherwise, the same icons would be two
# classes, even in two splits.
SYNONYMS = {
    **dict.fromkeys(("account", "person", "profile"), "user"),
    **dict.fromkeys(("people", "group", "team"), "users"),
    **dict.fromkeys(("add",), "plus"),
    **dict.fromkeys(("attachment",), "paperclip"),
    **dict.fromkeys(("alert", "exclamation"), "warning"),
    **dict.fromkeys(("aeroplane", "plane"), "airplane"),
    **dict.fromkeys(("bolt", "flash", "zap"), "lightning"),
    **dict.fromkeys(("bulb", "idea"), "lightbulb"),
    **dict.fromkeys(("checkmark", "done", "tick"), "check"),
    **dict.fromkeys(("comment", "comments", "message", "messages"), "chat"),
    **dict.fromkeys(("cog", "gear", "cogs"), "settings"),
    **dict.fromkeys(("computer", "desktop"), "monitor"),
    **dict.fromkeys(("cut",), "scissors"),
    **dict.fromkeys(("diskette", "floppy"), "save"),
    **dict.fromkeys(("document", "doc"), "file"),
    **dict.fromkeys(("duplicate",), "copy"),
    **dict.fromkeys(("droplet", "water"), "drop"),
    **dict.fromkeys(("earth", "world"), "globe"),
    **dict.fromkeys(("edit", "pen"), "pencil"),
    **dict.fromkeys(("email", "envelope"), "mail"),
    **dict.fromkeys(("flame",), "fire"),
    **dict.fromkeys(("funnel",), "filter"),
    **dict.fromkeys(("hashtag",), "hash"),
    **dict.fromkeys(("hdd",), "drive"),
    **dict.fromkeys(("help",), "question"),
    **dict.fromkeys(("house",), "home"),
    **dict.fromkeys(("joystick", "game", "controller"), "gamepad"),
    **dict.fromkeys(("maximize", "expand"), "fullscreen"),
    **dict.fromkeys(("microphone",), "mic"),
    **dict.fromkeys(("movie",), "film"),
    **dict.fromkeys(("notification",), "bell"),
    **dict.fromkeys(("picture", "photo"), "image"),
    **dict.fromkeys(("print",), "printer"),
    **dict.fromkeys(("reload", "sync"), "refresh"),
    **dict.fromkeys(("shop", "storefront"), "store"),
    **dict.fromkeys(("slash",), "off"),
    **dict.fromkeys(("smartphone", "iphone"), "mobile"),
    **dict.fromkeys(("thumbs",), "thumb"),
    **dict.fromkeys(("television",), "tv"),
    **dict.fromkeys(("time",), "clock"),
    **dict.fromkeys(("timer",), "stopwatch"),
    **dict.fromkeys(("translate",), "language"),
    **dict.fromkeys(("x", "times", "xmark"), "close"),
}
# Synonyms of several words, in alphabetical order, after the synonyms of words.
COMPOUNDS = {
    "airplane-paper": "send",
    "align-center-text": "align-center",
    "align-left-text": "align-left",
    "align-right-text": "align-right",
    "bank-note": "money",
    "box": "package",
    "cart-shopping": "cart",
    "check-square": "checkbox",
    "circle-info": "info",
    "circle-question": "question",
    "circle-user": "user",
    "circle-warning": "warning",
    "disk-save": "save",
    "in-log": "login",
    "in-sign": "login",
    "location": "map-pin",
    "lock-open": "unlock",
    "mark-question": "question",
    "mark-warning": "warning",
    "map-marker": "map-pin",
    "location-map": "map-pin",
    "music-note": "music",
    "mute-volume": "off-volume",
    "log-out": "logout",
    "out-sign": "logout",
    "price-tag": "tag",
    "basket-shopping": "basket",
    "triangle-warning": "warning",
    "wand": "magic-wand",
}
# Names that mean different things in different families.
AMBIGUOUS = {
    *("apple", "badge", "block", "cancel", "cast", "chart", "cross", "delete", "dislike", "error"),
    *("frame", "like", "medium", "more", "phone", "pin", "record", "remove", "school", "switch"),
}
# Trade marks, which all families draw alike.
BRANDS = {
    *("android", "behance", "bitcoin", "bluetooth", "chrome", "codepen", "discord", "dribbble"),
    *("dropbox", "facebook", "figma", "github", "gitlab", "google", "instagram", "linkedin"),
    *("logo", "npm", "paypal", "pinterest", "reddit", "skype", "slack", "snapchat", "spotify"),
    *("telegram", "tiktok", "twitch", "twitter", "whatsapp", "windows", "wordpress", "youtube"),
}


def class_of(name: str, styles: set[str]) -> str | None:
    """Returns the class of an icon.

    Args:
        name: str. The icon's name in its set.
        styles: set of str. Endings that the set declares as styles.

    Returns:
        Its words without the style, each replaced by the synonym that is kept, in alphabetical
        order; None for trade marks and names that mean different things.

    Example:

    >>> class_of("house-bold", {"bold"}), class_of("circle-check-fill", set())
    ('home', 'check-circle')
    """
    bare = name
    while True:
        endings = [s for s in STYLES | styles if bare.endswith(f"-{s}")]
        if not endings:
            break
        bare = bare.removesuffix("-" + max(endings, key=len))
    words = {SYNONYMS.get(word, word) for word in bare.split("-")}
    joined = "-".join(sorted(words))
    joined = COMPOUNDS.get(joined, joined)
    return None if words & BRANDS or joined in AMBIGUOUS else joined


def icons_of_classes(sets: Mapping[str, IconSet]) -> dict[str, dict[str, str]]:
    """Finds the icons of each class, one of each set: the one with the plainest name.

    No icon is given to two classes, by its name and another name of it.

    Args:
        sets: mapping from names to IconSets.

    Returns:
        For each class its icons: names, by set.
    """
    found: dict[str, dict[str, str]] = {}
    for set_name, icons in sets.items():
        given: set[str] = set()
        by_plainness = sorted(icons.names, key=lambda n: (n != icons.names[n], len(n), n))
        for name in by_plainness:
            label = class_of(name, icons.styles)
            icon = icons.names[name]
            if label is not None and icon not in given:
                given.add(icon)
                found.setdefault(label, {}).setdefault(set_name, icon)
    return dict(sorted(found.items()))
