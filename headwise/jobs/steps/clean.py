"""Nothing searched is scored as unseen: images that a mask was searched or picked on are left out, and said.

In: pairs or splits, and masks that remember their images (`data/seen.py`). Out: what is left, and how many are gone.
A mask typed as text remembers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwise.data.pairs import Pairs
from headwise.data.seen import narrowed, recognised, remembered, together, without
from headwise.data.splits import Splits
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.progress import Reporter
from headwise.wording import option


def insist() -> str:
    """What to do about data that were searched."""
    return f"Give other data, or {option('allow_searched', 'True')} to score them all the same."


def seen_by(bench: Bench, *, kept_searched: bool = False) -> dict[str, dict[str, str]]:
    """What a mask found on a bench remembers of its images and of those of kept domains, for its provenance.

    Arguments:
        kept_searched: the search itself looked at the kept domains' search splits; the choice always does at their
            pick splits.
    """
    seen = {}
    for name in ("search", "pick"):
        benches = [bench, *(bench.kept if name == "pick" or kept_searched else ())]
        memories = [remembered(one.pairs, one.indices(name)) for one in benches]
        if bench.anchored and name == "search":  # learned values were trained on them, too
            memories.append(remembered(bench.anchored.pairs, range(len(bench.anchored.pairs))))
        seen[name] = together(memories)
    return seen


def unseen(pairs: Pairs, masks: Sequence[Mask], allow: bool, reporter: Reporter) -> tuple[Pairs, int]:
    """The images that no mask was searched or picked on, and how many others there are (kept where `allow` is set).

    Raises:
        HeadwiseError: fewer than two images are left.
    """
    gone = recognised(pairs, [memory for mask in masks for memory in _memories(mask)])
    count = int(gone.sum())
    if not count:
        _say_unknown(masks, reporter)
        return pairs, 0
    if allow:
        reporter.say(
            f"{pairs.name}: {count:,} of {len(pairs):,} images were searched or picked on; scored all the same."
        )
        return pairs, count
    try:
        left = without(pairs, gone)
    except HeadwiseError as error:
        raise HeadwiseError(
            f"{pairs.name}: the mask was searched or picked on {count:,} of its {len(pairs):,} images. {error} {insist()}"
        ) from error
    reporter.say(f"{pairs.name}: {count:,} images that the mask was searched or picked on are left out.")
    return left, count


def unseen_splits(
    pairs: Pairs, splits: Splits, masks: Sequence[Mask], allow: bool, reporter: Reporter
) -> tuple[Splits, dict[str, int]]:
    """Splits to compare masks on: nothing that any was searched on, and in the test split nothing picked on either.

    A pick split may choose again among masks that it chose before; a test split may not have been used at all.

    Raises:
        HeadwiseError: fewer than two images are left of a split.
    """
    search = recognised(pairs, [m for mask in masks for m in _memories(mask, ("search",))])
    gone = {
        "pick": search,
        "test": search | recognised(pairs, [m for mask in masks for m in _memories(mask, ("pick",))]),
    }
    counts = {name: int(out[list(getattr(splits, name))].sum()) for name, out in gone.items()}
    if not any(counts.values()):
        _say_unknown(masks, reporter)
        return splits, counts
    said = f"{pairs.name}: {counts['pick']:,} pick and {counts['test']:,} test images that a mask was searched on"
    if allow:
        reporter.say(f"{said} are scored all the same.")
        return splits, counts
    try:
        left = narrowed(pairs, splits, gone)
    except HeadwiseError as error:
        raise HeadwiseError(f"{said} have to be left out. {error} {insist()}") from error
    reporter.say(f"{said} are left out.")
    return left, counts


def apart(domain: Pairs, main: Pairs, reporter: Reporter) -> Pairs:
    """Another domain without the images that the data to improve on have too.

    Raises:
        HeadwiseError: fewer than two images are left.
    """
    if domain.hash == main.hash:
        return domain  # refused elsewhere, in better words
    gone = recognised(domain, [remembered(main, range(len(main)))])
    if not gone.any():
        return domain
    said = f"{domain.name}: {int(gone.sum()):,} images that {main.name} has too"
    try:
        left = without(domain, gone)
    except HeadwiseError as error:
        raise HeadwiseError(f"{said} have to be left out. {error} Give other data.") from error
    reporter.say(f"{said} are left out.")
    return left


def _memories(mask: Mask, names: Sequence[str] = ("search", "pick")) -> list[Mapping[str, str]]:
    seen = mask.provenance.get("seen")
    return [seen[name] for name in names if isinstance(seen.get(name), Mapping)] if isinstance(seen, Mapping) else []


def _say_unknown(masks: Sequence[Mask], reporter: Reporter) -> None:
    if any("data" in mask.provenance and "seen" not in mask.provenance for mask in masks):
        reporter.say(
            "A mask here does not remember the images that it was searched on: make sure that these are others."
        )
