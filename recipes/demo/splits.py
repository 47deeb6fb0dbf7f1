"""Splits and class lists: lists of rows of images.npy. Pure functions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from common import Record, words
from deduplicate import domain_of
from emoji_labels import EmojiIndex
from hashing import unit_hash

VALIDATION_SHARE = 0.02
CORE_SETS = 4  # so many sets must draw a concept for its one-colour icons to be in the core
CORE_ICONS = 12  # one-colour icons per concept in the core
SHARED_DOMAINS = 4  # a fine class is listed as shared if so many domains have it


def split_of(record: Record) -> str:
    """The one basic split of a picture. A concept is on the same side, select or test, in every target."""
    domain = domain_of(record.set)
    if domain != "pretrain":
        part = "select" if unit_hash(record.concept, "ab") < 0.5 else "test"
        return f"target_{domain}_{'skin' if record.skin else part}"
    if record.skin:
        return "pretrain_skin"
    is_validation = unit_hash(f"{record.set}/{record.name}", "val") < VALIDATION_SHARE
    return "pretrain_val" if is_validation else "pretrain"


def make_splits(records: Mapping[int, Record]) -> dict[str, list[int]]:
    """Every split.

    Arguments:
        records: those that stay, by their row before deduplication (it seeds the choice of the core).

    Returns:
        Split → positions in `records`. pretrain_color, pretrain_permissive and pretrain_core lie within pretrain.
    """
    rows, kept = list(records), list(records.values())
    splits = defaultdict(list)
    for i, record in enumerate(kept):
        splits[split_of(record)].append(i)
    pretrain = splits["pretrain"]
    permissive = words("icons", "permissive")
    splits["pretrain_color"] = [i for i in pretrain if kept[i].palette]
    splits["pretrain_permissive"] = [i for i in pretrain if kept[i].licence in permissive]
    order = sorted(pretrain, key=lambda i: unit_hash(str(rows[i]), "core"))
    splits["pretrain_core"] = sorted(_core(order, kept))
    return dict(splits)


def _core(order: Sequence[int], records: Sequence[Record]) -> list[int]:
    """Every picture in colour, every emoji, the illustrative sets, and a few icons of what several sets draw."""
    sets_of_concept = defaultdict(set)
    for i in order:
        sets_of_concept[records[i].concept].add(records[i].set)
    core, taken = [], Counter()
    for i in order:
        record = records[i]
        if record.palette or record.kind == "emoji" or record.set in words("icons", "illustrative"):
            core.append(i)
        elif len(sets_of_concept[record.concept]) >= CORE_SETS and taken[record.concept] < CORE_ICONS:
            taken[record.concept] += 1
            core.append(i)
    return core


def make_classes(records: Sequence[Record], splits: Mapping[str, Sequence[int]], index: EmojiIndex) -> dict:
    """Classes for zero-shot tasks: coarse (50) and fine (Unicode emoji), each domain → rows; skin tones left out."""
    subsets = {"pretrain_color", "pretrain_permissive", "pretrain_core"}
    coarse, fine = defaultdict(lambda: defaultdict(list)), defaultdict(lambda: defaultdict(list))
    for split, rows in splits.items():
        if split in subsets or "skin" in split:
            continue
        domain = split.removesuffix("_select").removesuffix("_test").removesuffix("_val")
        for i in rows:
            if records[i].coarse:
                coarse[records[i].coarse][domain].append(i)
            if records[i].hexcode:
                fine[records[i].concept][domain].append(i)
    labels = index.labels_by_concept()
    emoji_domains = {"pretrain", "target_noto", "target_openmoji"}
    return {
        "about": "class -> domain -> rows; fine classes are Unicode emoji, to which icons and clip art are linked "
        "by name (noisy)",
        "coarse": coarse,
        "fine": fine,
        "fine_in_emoji_domains": sorted(name for name, rows in fine.items() if emoji_domains <= rows.keys()),
        "fine_in_4_or_more_domains": sorted(
            name for name, rows in fine.items() if len(rows) >= SHARED_DOMAINS and "pretrain" in rows
        ),
        "fine_label": {name: labels.get(name, {"en": name.replace("-", " ")}) for name in fine},
    }


def set_statistics(records: Sequence[Record], kept: Mapping[int, Record]) -> list[dict]:
    """Counts, licences and author of every icon set, before and after deduplication."""
    listed, stayed = defaultdict(list), defaultdict(list)
    for record in records:
        listed[record.set].append(record)
    for record in kept.values():
        stayed[record.set].append(record)
    rows = []
    for name in sorted(listed):
        authors = {record.author for record in listed[name]}
        domain = domain_of(name)
        rows.append(
            {
                "set": name,
                "kind": listed[name][0].kind,
                "licence": sorted({record.licence for record in listed[name]}),
                "author": authors.pop() if len(authors) == 1 else "various",
                "listed": len(listed[name]),
                "kept": len(stayed[name]),
                "concepts": len({record.concept for record in stayed[name]}),
                "captions": sum(len(record.captions) for record in stayed[name]),
                "keywords": sum(len(record.keywords) for record in stayed[name]),
                "palette": listed[name][0].palette,
                "split": domain if domain == "pretrain" else f"target_{domain}",
            }
        )
    return rows
