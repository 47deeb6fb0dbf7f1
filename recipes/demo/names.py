"""From file and icon names to captions. Pure functions."""

import re
import unicodedata
from collections.abc import Collection, Iterable

from common import sources, words

SIZE_IN_STYLE = re.compile(r"(^|-)(10|12|16|20|24|28|30|32|48|56|64)(px|w|x)?(?=-|$)")
GLUED_NUMBER = re.compile(r"(.*[a-z]{4,})(\d)")  # "sofa3"
NUMBERED_FORMAT = re.compile(r"(html|mpeg|css|heading|web)\d$")


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def squash(text: str) -> str:
    """Letters and digits only, lower case, without accents: equal for any spelling of one name."""
    return re.sub(r"[^a-z0-9]", "", _plain(text.lower()).replace("ß", "ss"))


def slug(text: str) -> str:
    """Lower-case ASCII words joined by hyphens; the form of a concept."""
    return re.sub(r"[^a-z0-9]+", "-", _plain(text.lower().replace("’", "").replace("'", ""))).strip("-")


def unique(texts: Iterable[str | None]) -> list[str]:
    """Texts with single spaces, without empty ones and without repeats that differ in case only."""
    kept: dict[str, str] = {}
    for text in texts:
        clean = re.sub(r"\s+", " ", text or "").strip()
        if clean:
            kept.setdefault(clean.lower(), clean)
    return list(kept.values())


def clean_title(title: str) -> str:
    """A clip-art title without mark-up, entities and remarks about its making."""
    title = re.sub(r"<[^>]+>", "", title)
    title = re.sub(r"&(amp|quot|apos|lt|gt);", " ", title).replace("_", " ")
    title = re.sub(r"\(?\b(fixed|remix|public domain|clip ?art|svg|by [A-Z].*)\b\)?$", "", title, flags=re.I)
    return re.sub(r"\s+", " ", title).strip(" .,-_")


def split_camel(text: str) -> str:
    """A space between a small and a capital letter: "screwDriver" → "screw Driver"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)


def is_brand(name: str) -> bool:
    """Whether a hyphenated name is a brand's, or begins with it."""
    brands = words("icons", "brands")
    return name in brands or name.split("-")[0] in brands


def split_style(
    name: str, suffixes: Collection[str], prefixes: Collection[str], siblings: Collection[str] = ()
) -> tuple[str, str]:
    """Part what is drawn from how it is drawn.

    Arguments:
        name: an icon's name, as "battery-charging-24-filled".
        suffixes, prefixes: what the icon set itself declares as style.
        siblings: every name in the set; a risky ending ("sharp") is a style only beside the name without it.

    Returns:
        The name without style, and the style's words joined by hyphens: ("battery-charging", "filled-24").
    """
    styles = []
    for prefix in sorted(filter(None, prefixes), key=len, reverse=True):
        if name.startswith(prefix + "-"):
            name = name[len(prefix) + 1 :]
            styles.append(prefix)
            break
    for suffix in sorted(filter(None, suffixes), key=len, reverse=True):
        if name.endswith("-" + suffix):
            name = name[: -len(suffix) - 1]
            styles.append(suffix)
            break
    while (shorter := _without_last_style(name, siblings)) is not None:
        styles.append(name[len(shorter) + 1 :])
        name = shorter
    if (match := GLUED_NUMBER.fullmatch(name)) and not NUMBERED_FORMAT.search(name):
        name = match.group(1)
        styles.append(match.group(2))
    return name, "-".join(styles)


def _without_last_style(name: str, siblings: Collection[str]) -> str | None:
    for style in sources()["icons"]["compound_styles"].split():
        if name.endswith("-" + style):
            return name[: -len(style) - 1]
    *rest, last = name.split("-")
    if not rest:
        return None
    base = "-".join(rest)
    is_style = last in words("icons", "styles") or last in ("24px", "32w")
    is_style |= last in words("icons", "risky_styles") and (
        base in siblings
        or (last in ("two", "three", "four", "five") and f"{base}-one" in siblings)
        or (last == "one" and f"{base}-two" in siblings)
    )
    is_style |= bool(re.fullmatch(r"\d+(px|w|x)?", last)) and rest[-1] not in words("icons", "numbered_things")
    return base if is_style else None
