"""Records of the icon and emoji sets that Iconify collects."""

import re
from collections import defaultdict
from dataclasses import dataclass

from common import Paths, Record, read_json, sources, words
from emoji_labels import Emoji, EmojiIndex
from icon_tags import load_tags
from names import SIZE_IN_STYLE, is_brand, slug, split_camel, split_style, squash, unique

LARGE_SET = 6000  # icons; of a larger set two styles of an icon are taken, else three


@dataclass(frozen=True)
class IconSet:
    """One Iconify set; `icons` holds the icons that are not hidden, `category` and `aliases` are by icon."""

    name: str
    licence: str
    author: str
    palette: bool
    icons: list[str]
    all_names: set[str]
    category: dict[str, str]
    aliases: dict[str, list[str]]
    code_points: dict[str, list[str]]
    suffixes: list[str]
    prefixes: list[str]

    def record(self, icon: str, **fields) -> Record:
        common = {"set": self.name, "licence": self.licence, "author": self.author, "palette": self.palette}
        return Record(**common, name=icon, source=("iconify", self.name, icon), **fields)


def load_set(paths: Paths, name: str, about: dict) -> IconSet:
    """Read one set's JSON file; `about` is its entry in Iconify's collections.json."""
    content = read_json(paths.iconify / f"json/{name}.json")
    category: dict[str, str] = {}
    for title, icons in content.get("categories", {}).items():
        for icon in icons:
            category.setdefault(icon, title)
    aliases, code_points = defaultdict(list), defaultdict(list)
    for alias, entry in content.get("aliases", {}).items():
        if set(entry) <= {"parent", "hidden"}:  # an alias with a rotation or flip is another picture
            aliases[entry["parent"]].append(alias)
    for points, icon in content.get("chars", {}).items():
        code_points[icon].append(points)
    return IconSet(
        name=name,
        licence=about["license"].get("spdx") or about["license"].get("title"),
        author=about["author"]["name"],
        palette=bool(about.get("palette")),
        icons=[icon for icon, entry in content["icons"].items() if not entry.get("hidden")],
        all_names=set(content["icons"]),
        category=category,
        aliases=aliases,
        code_points=code_points,
        suffixes=list(content.get("suffixes") or {}),
        prefixes=list(content.get("prefixes") or {}),
    )


def iconify_records(paths: Paths, emoji: EmojiIndex) -> tuple[list[Record], dict[str, tuple[int, str, str]]]:
    """Records of every set that is taken.

    Returns:
        The records, and for every set left out (number of icons, licence, reason).
    """
    reasons = {name: group["reason"] for group in sources()["icons"]["excluded"] for name in group["sets"].split()}
    tags, brands = load_tags(paths), _brand_names(paths)
    records, excluded = [], {}
    for name, about in read_json(paths.iconify / "collections.json").items():
        licence = about["license"].get("spdx") or about["license"].get("title")
        if name in reasons or licence not in words("icons", "licences"):
            excluded[name] = (about["total"], licence, reasons.get(name, "licence"))
            continue
        icons = load_set(paths, name, about)
        if name in words("icons", "emoji_sets"):
            records += emoji_records(icons, emoji)
        else:
            records += icon_records(icons, emoji, tags.get(name, {}), brands)
    return records, excluded


def _brand_names(paths: Paths) -> set[str]:
    """Names that only logo sets use."""

    def union(key: str) -> set[str]:
        sets = sources()["icons"][key].split()
        return set().union(*(read_json(paths.iconify / f"json/{name}.json")["icons"] for name in sets))

    return union("brand_names_from") - union("common_words_from") - {"apple"}


def emoji_records(icons: IconSet, index: EmojiIndex) -> list[Record]:
    """Records of an emoji set: Unicode's label, short codes and keywords for every picture that is understood."""
    records = []
    for icon in icons.icons:
        known = (index.of_code_points(points) for points in icons.code_points.get(icon, []))
        names = [icon, *icons.aliases.get(icon, [])]
        hexcode = next(filter(None, known), None) or next(filter(None, map(index.find, names)), None)
        if hexcode is not None:
            emoji = index.by_hexcode[hexcode]
            labels = {"captions": unique([emoji.label, *emoji.short_codes]), "keywords": emoji.tags}
            labels |= {"category": emoji.group, "skin": emoji.is_skin_tone}
            records.append(icons.record(icon, kind="emoji", **labels, **_emoji_fields(emoji, "")))
        elif icons.name not in words("icons", "emoji_extras_dropped"):
            labels = {"captions": [icon.replace("-", " ")], "keywords": []}
            labels |= {"category": icons.category.get(icon, ""), "skin": "skin-tone" in icon}
            records.append(icons.record(icon, kind="emoji", **labels, **_emoji_fields(None, icon)))
    return records


def _emoji_fields(emoji: Emoji | None, name: str) -> dict:
    """The fields that follow from the emoji that a picture shows, or from its own name if it shows none."""
    return {
        "concept": slug(emoji.base_label) if emoji else slug(name),
        "hexcode": emoji.hexcode if emoji else None,
        "i18n": emoji.translations if emoji else {},
        "subcategory": emoji.subgroup if emoji else "",
        "coarse": emoji.coarse if emoji else None,
    }


def icon_records(icons: IconSet, index: EmojiIndex, tags: dict[str, list[str]], brands: set[str]) -> list[Record]:
    """Records of an icon set: one icon in at most three styles, named by what is left of its file name."""
    groups = _by_drawing(icons, brands)
    styles = 2 if sum(map(len, groups.values())) > LARGE_SET else 3
    is_flag_set = icons.name in words("icons", "flag_sets")
    records = []
    for drawing, variants in groups.items():
        emoji = index.named(drawing)
        if is_flag_set:
            emoji = index.by_hexcode.get(_flag_hexcode(drawing))
            if emoji is None:
                continue
            variants = variants[:1]
        for icon in choose_styles(variants, styles):
            aliases = [split_style(alias, icons.suffixes, icons.prefixes)[0] for alias in icons.aliases.get(icon, [])]
            aliases = [re.sub(r"2x$", "", alias) for alias in aliases]
            aliases = [a for a in aliases if len(a) > 2 and a.split("-")[0] not in words("icons", "brands")]
            captions = [name.replace("-", " ") for name in [drawing, *aliases]]
            if is_flag_set and emoji:
                captions = [emoji.label, *emoji.short_codes]
            if icons.name == "covid":
                captions = [captions[0].removeprefix("covid 19 ")]
            category = icons.category.get(icon, "")
            keywords = [*tags.get(drawing, []), *tags.get(icon, []), split_camel(category).lower()]
            labels = {"captions": unique(captions), "keywords": unique(filter(_is_useful, keywords))}
            fields = _emoji_fields(emoji, drawing)
            records.append(icons.record(icon, kind="icon", category=category, skin=False, **labels, **fields))
    return records


def _is_useful(keyword: str) -> bool:
    is_brand_word = not words("icons", "brands").isdisjoint(slug(keyword).split("-"))
    return not is_brand_word and not re.search(sources()["icons"]["useless_keyword"], keyword, re.I)


def _flag_hexcode(country: str) -> str:
    """The emoji of a country's flag: its ISO code in regional indicators; "" if it is no such code."""
    if len(country) != 2 or not country.isalpha():
        return ""
    return "-".join(f"{0x1F1E6 + ord(letter) - ord('A'):X}" for letter in country.upper())


def _by_drawing(icons: IconSet, brands: set[str]) -> dict[str, list[tuple[str, str]]]:
    """Name without style → (icon, style), without brands and names that say nothing."""
    rules = sources()["icons"]
    groups = defaultdict(list)
    has_logos = not icons.all_names.isdisjoint(("github", "facebook"))  # then "apple" is no fruit
    for icon in icons.icons:
        if re.search(rules["brand_categories"], icons.category.get(icon, ""), re.I):
            continue
        if re.search(r"(^|-)(brand|logo|logos)(-|$)", icon):
            continue
        drawing, style = split_style(icon, icons.suffixes, icons.prefixes, icons.all_names)
        if drawing in brands or is_brand(drawing) or (drawing == "apple" and has_logos):
            continue
        if len(squash(drawing)) >= 2 and not re.match(rules["useless_name"], drawing, re.I):
            groups[drawing].append((icon, style))
    return groups


def choose_styles(variants: list[tuple[str, str]], count: int) -> list[str]:
    """At most `count` icons that differ in style and not in size alone, plain and filled ones first.

    Arguments:
        variants: (icon, style) of one drawing. Of several sizes in one style the one nearest 24 px is taken.
    """
    nearest: dict[str, tuple[int, str]] = {}
    for icon, style in variants:
        sizeless = SIZE_IN_STYLE.sub("", style)
        size = re.search(r"\d\d", style)
        distance = abs(int(size.group()) - 24) if size else 0
        if sizeless not in nearest or distance < nearest[sizeless][0]:
            nearest[sizeless] = (distance, icon)
    order = sorted(nearest, key=len)
    if len(order) > count:
        filled = [style for style in order if re.search("fill|solid|bold", style)]
        others = [style for style in order if style not in filled]
        order = (others[:1] + filled[:1] + others[1:] + filled[1:])[:count]
    return [nearest[style][1] for style in order]
