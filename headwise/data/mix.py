"""`mix:FILE.json`: several sources as one, whose fitness is the weighted mean of theirs.

{"parts": [{"source": "karpathy:dataset_coco.json?images=coco", "name": "coco", "weight": 2},
           {"source": "{here}/birds.csv", "label": "species", "fitness": "worst_group_acc", "group": "place"}]}

In: the file, and how one source is read. Out: `Pairs` with `parts`. What weights do to a score is in
`scoring/objectives/combined.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from headwise.data.files import parent
from headwise.data.pairs import Pairs, Part, joined
from headwise.data.readers.json_files import load_json
from headwise.errors import HeadwiseError

KIND = "mix:"
MOST = 1e9  # the largest weight
COLUMNS = ("image", "caption", "split", "group", "label", "images")
GOAL = ("fitness", "templates", "class_names", "distractors")
KNOWN = ("source", "name", "weight", "split_by", *COLUMNS, *GOAL)


def read_mix(source: str, read: Callable[[str, Mapping[str, str]], Pairs]) -> Pairs:
    """Every part read on its own, then joined.

    Arguments:
        source: `mix:FILE.json`. In the file `{here}` stands for its folder; other paths are as if they were typed.
        read: (source, its column options) → its pairs.

    Raises:
        HeadwiseError: not such a file, an unknown key, a bad weight, equal names, or what `read` raises.
    """
    location = source.removeprefix(KIND)
    parts = [_part(location, i, item, read) for i, item in enumerate(_items(location))]
    names = [part.name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise HeadwiseError(f"{location}: two parts are called {twice[0]!r}. Give each its own name.")
    return joined(source, parts)


def _items(location: str) -> list[Mapping]:
    data = load_json(location)
    items = data.get("parts") if isinstance(data, dict) else data
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise HeadwiseError(
            f'{location} must hold {{"parts": [{{"source": ..., "weight": ...}}, ...]}}. '
            f"A part may have: {', '.join(KNOWN)}."
        )
    return items


def _part(location: str, number: int, item: Mapping, read: Callable[[str, Mapping[str, str]], Pairs]) -> Part:
    where = f"{location}, part {number + 1}"
    if unknown := sorted(set(item) - set(KNOWN)):
        raise HeadwiseError(f"{where}: unknown key {unknown[0]!r}. Known are {', '.join(KNOWN)}.")
    weight = item.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MOST:
        raise HeadwiseError(f"{where}: weight is {weight!r:.40}; a number above 0, up to {MOST:g}, is needed.")
    for key in KNOWN:
        if key != "weight" and key in item and not (isinstance(item[key], str) and item[key]):
            raise HeadwiseError(f"{where}: {key} is {item[key]!r}; a text is needed.")
    if "source" not in item:
        raise HeadwiseError(f"{where} names no source.")
    here = parent(location)
    texts = {key: value.replace("{here}", here) for key, value in item.items() if isinstance(value, str)}
    if texts["source"].startswith(KIND):
        raise HeadwiseError(f"{where} is a mixture itself. List its parts here instead.")
    name = texts.get("name") or Path(texts["source"].split("?")[0].rpartition(":")[2]).stem or f"part {number + 1}"
    pairs = read(texts["source"], {key: texts[key] for key in COLUMNS if key in texts})
    goal = tuple((key, texts[key]) for key in GOAL if key in texts)
    return Part(name.replace("/", " "), pairs, float(weight), texts.get("split_by", "auto"), goal)
