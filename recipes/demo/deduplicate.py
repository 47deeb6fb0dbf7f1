"""Which drawn pictures stay: no blank ones, no copies, and no copy of a target's picture in training."""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import numpy as np
from common import SIZE, Record, sources, words
from names import unique

THUMBNAIL = 16  # pixels; pictures are compared at this size
MIN_INK = 0.006  # share of pixels darker than 200; less is a blank picture
SAME_DOMAIN, OTHER_DOMAIN = 3.0, 8.0  # mean absolute difference (0-255) below which two thumbnails are copies
KIND_ORDER = {"clipart": 0, "photo": 0, "emoji": 1, "icon": 2}


@dataclass(frozen=True)
class Digests:
    """What comparing needs of every picture: thumbnails (N, 16, 16, 3), ink (N,) and a hash each."""

    thumbnails: np.ndarray
    ink: np.ndarray
    hashes: list[bytes]


def domain_of(icon_set: str) -> str:
    """The target that a set belongs to, or "pretrain"."""
    return next((name for name, sets in sources()["targets"].items() if icon_set in sets), "pretrain")


def digest(pictures: np.ndarray, chunk: int = 4096) -> Digests:
    """Thumbnails, ink and hashes of (N, 64, 64, 3) uint8, a chunk at a time."""
    count, cell = len(pictures), SIZE // THUMBNAIL
    thumbnails = np.zeros((count, THUMBNAIL, THUMBNAIL, 3), np.float32)
    ink = np.zeros(count, np.float32)
    hashes = []
    for start in range(0, count, chunk):
        block = np.asarray(pictures[start : start + chunk])  # (b, 64, 64, 3)
        cells = block.reshape(len(block), THUMBNAIL, cell, THUMBNAIL, cell, 3)
        thumbnails[start : start + chunk] = cells.mean((2, 4))
        ink[start : start + chunk] = (block.min(3) < 200).mean((1, 2))
        hashes += [hashlib.md5(picture.tobytes()).digest() for picture in block]
    return Digests(thumbnails, ink, hashes)


def deduplicate(records: list[Record], drawn: np.ndarray, digests: Digests) -> tuple[dict[int, Record], Counter[str]]:
    """Keep one of each picture.

    Targets come first, so that of two copies the one in training goes; then emoji, then icons, permissive
    licences first. An identical picture gives its labels to the one that stays, if they show one thing.

    Arguments:
        records: N records.
        drawn: (N,) bool, whether it could be drawn.
        digests: of the N pictures.

    Returns:
        The records that stay by their row, in the order of rows, and how many were dropped why.
    """
    inked = digests.ink > MIN_INK
    dropped = Counter({"render failed": int((~drawn).sum()), "blank or nearly blank": int((drawn & ~inked).sum())})
    domains = [domain_of(record.set) for record in records]

    def priority(row: int) -> tuple:
        record = records[row]
        licence = record.licence not in words("icons", "preferred")
        return domains[row] == "pretrain", KIND_ORDER[record.kind], record.skin, licence, row

    kept: dict[int, Record] = {}
    row_of_hash: dict[bytes, int] = {}
    rows_of_thing = defaultdict(list)
    for row in sorted(np.flatnonzero(drawn & inked).tolist(), key=priority):
        record = records[row]
        if (twin := row_of_hash.get(digests.hashes[row])) is not None:
            kept[twin] = _merge_labels(kept[twin], record)
            dropped["identical render"] += 1
            continue
        same_thing = rows_of_thing[record.hexcode or record.concept]
        domain = _domain_of_near_copy(row, same_thing, domains, digests.thumbnails)
        if domain is not None:
            is_leak = domain != domains[row]
            reason = f"near-duplicate of a {domain} image (leak)" if is_leak else "near-duplicate, same concept"
            dropped[reason] += 1
            continue
        row_of_hash[digests.hashes[row]] = row
        same_thing.append(row)
        kept[row] = record
    return dict(sorted(kept.items())), dropped


def _merge_labels(kept: Record, other: Record) -> Record:
    if kept.kind != other.kind or (kept.concept != other.concept and kept.set != other.set):
        return kept
    captions = unique([*kept.captions, *other.captions])
    return replace(kept, captions=captions, keywords=unique([*kept.keywords, *other.keywords]))


def _domain_of_near_copy(row: int, candidates: list[int], domains: list[str], thumbnails: np.ndarray) -> str | None:
    """The domain of the first kept picture of the same thing that looks the same; targets do not prune each other."""
    for other in candidates:
        same_domain = domains[other] == domains[row]
        if not same_domain and "pretrain" not in (domains[other], domains[row]):
            continue
        difference = np.abs(thumbnails[row] - thumbnails[other]).mean()
        if difference < (SAME_DOMAIN if same_domain else OTHER_DOMAIN):
            return domains[other]
    return None
