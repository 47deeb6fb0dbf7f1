"""Records of the Open Clip Art Library: titles, descriptions and keywords are inside its SVG files."""

import re
from collections import Counter
from pathlib import Path

from common import Paths, Record, sources, words
from emoji_labels import EmojiIndex
from names import clean_title, slug, squash, unique

FOLDER = "openclipart-svg/usr/share/openclipart/svg"
LICENCE = "public domain (CC Public Domain Dedication)"
RANKS = {"a": "ace", "j": "jack", "q": "queen", "k": "king"}
SUITS = {"h": "hearts", "d": "diamonds", "c": "clubs", "s": "spades"}
CARD_FILE = re.compile(r"/cards/\w+/\w+?_([hdcs])_(\w+)\.svg$")
USELESS_KEYWORD = re.compile(r"@|http|^(clip ?art|icons?|theme|unsorted|svg|png|image|hash)$", re.I)
SHARED_TITLE = 4  # a title that so many files have says nothing about one of them


def _element(svg: str, tag: str) -> str:
    match = re.search(rf"<dc:{tag}>(.*?)</dc:{tag}>", svg, re.S)
    return match.group(1) if match else ""


def coarse_of_folder(folder: str) -> str | None:
    """The class of a zero-shot task that a clip-art folder belongs to."""
    rules = sources()["coarse_by_folder"]
    return next((rule["class"] for rule in rules if re.search(rule["pattern"], folder)), None)


def openclipart_records(paths: Paths, index: EmojiIndex) -> tuple[list[Record], Counter[str]]:
    """Records of the clip art that is in the public domain and says what it shows.

    Returns:
        The records, and how many files were left out why.
    """
    root = paths.debian / FOLDER
    files = sorted(root.glob("**/*.svg"), key=str)
    texts = {file: file.read_text(encoding="utf-8", errors="replace") for file in files if not file.is_symlink()}
    titled = [text for text in texts.values() if "<dc:title>" in text]
    title_counts = Counter(clean_title(_element(text, "title")).lower() for text in titled)
    records, left_out = [], Counter()
    for file in files:
        name = file.relative_to(root).as_posix()
        if file.is_symlink():
            left_out["symlink"] += 1
        elif re.search(sources()["clipart"]["skipped_folders"], name):
            left_out["skipped dir"] += 1
        else:
            record = _record(name, texts[file], title_counts, index)
            if isinstance(record, str):
                left_out[record] += 1
            else:
                records.append(record)
    return records, left_out


def _record(name: str, svg: str, title_counts: Counter[str], index: EmojiIndex) -> Record | str:
    """The record of one file, or why there is none."""
    licences = re.findall(r'license\s+rdf:resource="([^"]*)"', svg)
    if not any("publicdomain" in licence.lower() for licence in licences):
        return "licence tag not public domain"
    author = re.sub("<[^>]+>", "", _element(svg, "creator")).strip()
    title, keywords = _title(name, svg, author, title_counts)
    if not re.search(r"[A-Za-z]{3}", title):
        return "no usable title"
    brands = words("icons", "brands") | words("clipart", "brands")
    if not brands.isdisjoint(slug(title).split("-")):
        return "brand in title"
    description = clean_title(_element(svg, "description"))
    is_short = 3 < len(description) < 160 and "@" not in description and "http" not in description
    bare = squash(re.sub(r"^(a|an|the) ", "", title.lower()))
    emoji = index.named(bare)
    if emoji is None and bare.endswith("s") and len(bare) > 4:
        emoji = index.named(bare[:-1])
    folder = name.rpartition("/")[0]
    return Record(
        set="openclipart",
        licence=LICENCE,
        author=re.sub(r"\s+", " ", author)[:80] or "Open Clip Art Library",
        palette=True,
        name=name,
        captions=unique([title, description if is_short else None]),
        keywords=keywords,
        concept=slug(emoji.base_label) if emoji else slug(title),
        category=folder,
        subcategory=emoji.subgroup if emoji else "",
        coarse=coarse_of_folder(folder) or (emoji.coarse if emoji else None),
        hexcode=emoji.hexcode if emoji else None,
        skin=False,
        i18n=emoji.translations if emoji else {},
        kind="clipart",
        source=("file", f"{FOLDER}/{name}"),
    )


def _title(name: str, svg: str, author: str, title_counts: Counter[str]) -> tuple[str, list[str]]:
    """A title from the SVG or, where that says nothing, from the file's name; and the keywords."""
    title = clean_title(_element(svg, "title"))
    keywords = unique(clean_title(item) for item in re.findall(r"<rdf:li>(.*?)</rdf:li>", svg, re.S))
    keywords = [keyword for keyword in keywords if not USELESS_KEYWORD.search(keyword)]
    by_author = set(slug(author).split("-"))
    from_file = [word for word in slug(Path(name).stem).split("-") if word not in by_author and not word.isdigit()]
    if card := CARD_FILE.search("/" + name):
        suit, rank = card.groups()
        title = f"{RANKS.get(rank, rank)} of {SUITS[suit]}"
        keywords.append("playing card")
    elif title_counts[title.lower()] >= SHARED_TITLE and from_file:
        keywords = unique([*keywords, title.lower()])
        title = " ".join(from_file)
    is_useless = not title or re.match(sources()["icons"]["useless_name"], title, re.I)
    if is_useless or re.search(r"Collection|Lemon SVG|theme|\.svg$|@|^\W*$", title):
        title = " ".join(from_file)
    return re.sub(r"[\s_-]*\d{1,3}[a-z]?$", "", title), keywords
