"""What Unicode calls each emoji, and which emoji a file name means."""

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass

from common import Paths, read_json, sources
from names import slug, squash, unique

SHORT_CODE_FILES = ("emojibase", "github", "joypixels", "iamcal")
TONE_ENDING = re.compile(r"^(.*?)-((?:medium-)?(?:light|dark)|medium)$")


@dataclass(frozen=True)
class Emoji:
    """One emoji; a skin-tone variant has the base label, tags and group of the emoji that it varies."""

    hexcode: str
    label: str
    base_label: str
    tags: list[str]
    is_skin_tone: bool
    group: str
    subgroup: str
    short_codes: list[str]
    translations: dict[str, str]

    @property
    def coarse(self) -> str | None:
        """The class of a zero-shot task that it belongs to."""
        return coarse_of_subgroup(self.subgroup)


def coarse_of_subgroup(subgroup: str) -> str | None:
    table = sources()["coarse_by_subgroup"]
    return next((name for name, subgroups in table.items() if subgroup in subgroups.split()), None)


@dataclass(frozen=True)
class EmojiIndex:
    """hexcode → emoji, squashed name → hexcode, and bare lower-case code points → hexcode."""

    by_hexcode: dict[str, Emoji]
    by_name: dict[str, str]
    by_code_points: dict[str, str]

    def of_code_points(self, code_points: str) -> str | None:
        """The hexcode for code points in any case, with or without the presentation selector."""
        return self.by_code_points.get(code_points.lower().replace("-fe0f", ""))

    def find(self, name: str) -> str | None:
        """The hexcode that an emoji set's file name means, trying the vendors' ways of naming."""
        spellings = [
            name,
            name.replace("flag-for-", "flag-"),
            re.sub(r"^flag-for-flag-", "flag-", name),
            name + "-skin-tone",
            re.sub(r"-default$", "", name),
            re.sub(r"^(.*?)-(man|woman)$", r"\2-\1", name),
            "flag-" + name,
            re.sub(r"-(\d+)$", "", name),
            name + "-face",
            name.replace("-with-", "-"),
            "flag" + re.sub(r"flag$", "", name) if name != "flag" else "",
        ]
        for spelling in spellings:
            if hexcode := self.by_name.get(squash(spelling)):
                return hexcode
        if match := TONE_ENDING.match(name):
            base, tone = match.groups()
            if hexcode := self.find(base):
                return self.by_name.get(squash(f"{self.by_hexcode[hexcode].base_label}{tone}skintone"))
        return None

    def named(self, name: str) -> Emoji | None:
        """The emoji without skin tone that has exactly this name, label or short code."""
        key = squash(name)
        emoji = self.by_hexcode.get(self.by_name.get(key, "")) if len(key) >= 3 else None
        return emoji if emoji and not emoji.is_skin_tone else None

    def labels_by_concept(self) -> dict[str, dict[str, str]]:
        """concept → {"en": label, language: label}."""
        plain = [emoji for emoji in self.by_hexcode.values() if not emoji.is_skin_tone]
        return {slug(emoji.label): {"en": emoji.label, **emoji.translations} for emoji in plain}


def _translations(paths: Paths) -> dict[str, dict[str, str]]:
    tables = {}
    for language in sources()["labels"]["languages"]:
        table = tables[language] = {}
        for entry in read_json(paths.npm / f"emojibase-data/{language}/data.json"):
            for variant in [entry, *entry.get("skins", [])]:
                table[variant["hexcode"]] = variant["label"]
    return tables


def _short_codes(paths: Paths) -> dict[str, list[str]]:
    codes = defaultdict(list)
    for name in SHORT_CODE_FILES:
        for hexcode, value in read_json(paths.npm / f"emojibase-data/en/shortcodes/{name}.json").items():
            codes[hexcode] += [value] if isinstance(value, str) else value
    return codes


def load_emoji(paths: Paths) -> EmojiIndex:
    """Read emojibase-data, and the further names that emoji sets give to code points."""
    groups = read_json(paths.npm / "emojibase-data/meta/groups.json")
    translations, codes = _translations(paths), _short_codes(paths)
    by_hexcode = {}
    for entry in read_json(paths.npm / "emojibase-data/en/data.json"):
        for variant in [entry, *entry.get("skins", [])]:
            hexcode, is_skin_tone = variant["hexcode"], variant is not entry
            spoken = [code for code in codes.get(hexcode, []) if re.search("[a-z]{3}", code)]
            by_hexcode[hexcode] = Emoji(
                hexcode=hexcode,
                label=variant["label"],
                base_label=entry["label"],
                tags=entry.get("tags", []),
                is_skin_tone=is_skin_tone,
                group=groups["groups"].get(str(entry.get("group")), "other"),
                subgroup=groups["subgroups"].get(str(entry.get("subgroup")), "other"),
                short_codes=[] if is_skin_tone else unique(re.sub("[_-]", " ", code) for code in spoken),
                translations={lang: table[hexcode] for lang, table in translations.items() if hexcode in table},
            )
    by_code_points = {hexcode.replace("-FE0F", "").lower(): hexcode for hexcode in by_hexcode}
    index = EmojiIndex(by_hexcode, _names(by_hexcode, codes), by_code_points)
    for icon_set in sources()["icons"]["emoji_names_from"].split():
        for code_points, name in read_json(paths.iconify / f"json/{icon_set}.json").get("chars", {}).items():
            if hexcode := index.of_code_points(code_points):
                index.by_name.setdefault(squash(name), hexcode)
    return index


def _names(by_hexcode: dict[str, Emoji], codes: dict[str, list[str]]) -> dict[str, str]:
    """Squashed name → hexcode; labels win over short codes, these over Unicode character names."""
    names: dict[str, str] = {}
    for hexcode, emoji in by_hexcode.items():
        names.setdefault(squash(emoji.label), hexcode)
    for hexcode in by_hexcode:
        for code in codes.get(hexcode, []):
            names.setdefault(squash(code), hexcode)
    for hexcode in by_hexcode:
        points = [point for point in hexcode.split("-") if point not in ("FE0F", "200D")]
        if len(points) == 1 and (name := unicodedata.name(chr(int(points[0], 16)), "")):
            names.setdefault(squash(name), hexcode)
        names.setdefault("u" + squash(hexcode), hexcode)
    return names
