"""LICENSE, ATTRIBUTION.md and README.md of a folder of packaged pairs."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from headwise.errors import HeadwiseError

LICENCE_URLS = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "MIT": "https://opensource.org/license/mit",
}
CHANGES = "the SVG (or bitmap) was rasterised at 64 × 64 pixels on white and stored as lossless WebP"


def licence_text(licences: Sequence[str], texts: Path) -> str:
    """The full text of every SPDX licence named, from the npm package spdx-license-list.

    Arguments:
        licences: SPDX names; other names (public domain) stand for themselves.
        texts: the package's folder `licenses/`.
    """
    parts = [
        "This licence covers the pictures and labels in this folder, not the program around it.\n"
        "Who made them and what was changed: ATTRIBUTION.md.\n"
    ]
    for licence in licences:
        path = texts / f"{licence}.json"
        if path.exists():
            parts.append(json.loads(path.read_text(encoding="utf-8"))["licenseText"].strip() + "\n")
        elif licence in LICENCE_URLS:
            raise HeadwiseError(f"no text of {licence} in {texts}; run `python recipes/demo/prepare.py fetch` first")
        else:
            parts.append(f"Pictures marked {licence!r}: see ATTRIBUTION.md.\n")
    return ("\n" + "-" * 80 + "\n\n").join(parts)


def attribution(rows: Sequence[dict], sources: dict[str, dict]) -> str:
    """Title, author, source, licence and changes for every set of pictures, and each author where they differ."""
    lines = ["# Attribution", ""]
    for name in sorted({row["set"] for row in rows}):
        members = [row for row in rows if row["set"] == name]
        source = sources[name]
        licences = sorted({row["licence"] for row in members})
        lines += [
            f"## {source['title']}",
            "",
            f"- Pictures: {len(members):,}, by {source['author']}",
            f"- Source: {source['url']}, as packaged in "
            + ("the Debian package named" if name in ("openclipart", "gcompris") else "the npm package @iconify/json"),
            "- Licence: " + ", ".join(f"{x} <{LICENCE_URLS[x]}>" if x in LICENCE_URLS else x for x in licences),
            f"- Changes: {CHANGES}. Skin-tone variants and the pictures that README.md lists were left out.",
            "",
        ]
        authors = Counter((row["author"], row["licence"]) for row in members)
        if len(authors) > 1:
            lines += ["| author | licence | pictures |", "|---|---|---|"]
            table = sorted(authors.items(), key=lambda item: (-item[1], item[0]))
            lines += [f"| {author.replace('|', '/')} | {licence} | {n} |" for (author, licence), n in table] + [""]
    lines += [
        "## Labels",
        "",
        "Names, aliases and keywords of emoji: Unicode CLDR short names and keywords (Unicode License v3) and short "
        "codes, through the npm package emojibase-data (MIT, Miles Johnson). Other pictures: the names, titles and "
        "keywords that their authors gave them. Numbered and ambiguous aliases were dropped.",
        "",
    ]
    if any("-SA-" in row["licence"] for row in rows):
        lines += [
            "Share-alike: this folder's Parquet file is an adaptation of the pictures above and is under the same "
            "licence (LICENSE). The Headwise program and its packaged model are separate works: the model never "
            "saw these pictures, and both have their own licences.",
            "",
        ]
    return "\n".join(lines)


def readme(target: str, rows: Sequence[dict], dropped: Counter[str], size: int) -> str:
    """What is in the folder, with counts that were measured on it."""
    lines = [
        f"# Demo pairs: {target}",
        "",
        f"{len(rows):,} pictures of 64 × 64 pixels with {sum(len(r['captions']) for r in rows):,} captions in one "
        f"Parquet file ({size / 1e6:.2f} MB): an ordinary pairs source, written by `recipes/demo/package_pairs.py`. "
        "The packaged model was trained on other drawing styles and never on these pictures.",
        "",
        "| split | concepts = pictures | captions | for |",
        "|---|---|---|---|",
    ]
    for split, use in (("search", "finding heads"), ("pick", "choosing among finalists"), ("test", "read once")):
        part = [row for row in rows if row["split"] == split]
        lines.append(f"| {split} | {len(part):,} | {sum(len(r['captions']) for r in part):,} | {use} |")
    lines += [
        "",
        "| column | what |",
        "|---|---|",
        "| `image` | struct of `bytes` (lossless WebP, the pixels of the rasterised picture) and `path` |",
        "| `captions` | list of strings: the name, aliases, and at most three keywords that fit this picture alone |",
        "| `concept`, `split` | splits are disjoint by concept; one picture per concept |",
        "| `category` | Unicode group, or the folder or category of its source |",
        "| `keywords` | every keyword of the source; most fit many pictures, so they are no queries |",
        "| `set`, `name`, `author`, `licence` | where the picture comes from |",
        "",
        "Each caption belongs to exactly one picture, so a retrieval query has exactly one right answer; an alias "
        "that two pictures share was dropped from both.",
        "",
        "Left out:",
        "",
        *[f"- {n:,}: {reason}" for reason, n in dropped.most_common()],
        "",
    ]
    return "\n".join(lines)
