"""TRAINING_DATA.md: whose pictures the packaged model was trained on, under which licence."""

import json
from collections import Counter

from common import Paths, read_json, sources

LABEL_SOURCES = (
    (
        "emojibase-data",
        "emoji names, short codes and keywords (Unicode CLDR)",
        "Miles Johnson; Unicode, Inc.",
        "MIT; Unicode-3.0",
    ),
    ("lucide-static", "keywords of Lucide icons", "Lucide Contributors", "ISC"),
    ("@tabler/icons", "keywords of Tabler icons", "Paweł Kuna", "MIT"),
    ("@phosphor-icons/core", "keywords of Phosphor icons", "Phosphor Icons", "MIT"),
    ("@mdi/svg", "aliases of Material Design Icons", "Pictogrammers", "Apache-2.0"),
)


def training_attributions(paths: Paths, split: str = "pretrain_permissive") -> tuple[str, int]:
    """A table of every icon set in a split.

    Returns:
        Markdown, and the number of sets in it.
    """
    rows = set(read_json(paths.data / "splits.json")["splits"][split])
    about = read_json(paths.iconify / "collections.json")
    counts: Counter[tuple[str, str, str]] = Counter()
    with (paths.data / "meta.jsonl").open(encoding="utf-8") as stream:
        for i, line in enumerate(stream):
            if i in rows:
                picture = json.loads(line)
                counts[picture["set"], picture["author"], picture["licence"]] += 1
    by_licence: Counter[str] = Counter()
    for (_, _, licence), count in counts.items():
        by_licence[licence] += count
    version = next(p for p in sources()["packages"]["npm"] if p.startswith("@iconify/json"))
    lines = [
        "# What the packaged model was trained on",
        "",
        "Written by `python recipes/demo/prepare.py attributions`; do not edit.",
        "",
        f"The packaged CLIP was trained from random weights on the split `{split}`: {len(rows):,} pictures from "
        f"{len(counts)} sets, rasterised at 64 × 64 pixels from the SVG in the npm package `{version}`, with their "
        "names and keywords as captions. All of them are under permissive licences without share-alike. No picture "
        "of a target style was used, and none is stored in the model.",
        "",
        "| licence (SPDX) | pictures |",
        "|---|---|",
        *[f"| {licence} | {count:,} |" for licence, count in by_licence.most_common()],
        "",
        "## Pictures",
        "",
        "| set | name | author | licence (SPDX) | licence text | pictures |",
        "|---|---|---|---|---|---|",
    ]
    for (name, author, licence), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        url, text = about[name]["author"].get("url", ""), about[name]["license"].get("url", "")
        who = f"[{author}]({url})" if url else author
        lines.append(f"| `{name}` | {about[name]['name']} | {who} | {licence} | {text} | {count:,} |")
    lines += ["", "## Names and keywords", "", "| package | what | author | licence (SPDX) |", "|---|---|---|---|"]
    lines += [f"| `{package}` | {what} | {author} | {licence} |" for package, what, author, licence in LABEL_SOURCES]
    return "\n".join(lines) + "\n", len(counts)
