"""Numbers and results as words and tables: points, intervals, p, metric names, the verdict.

In: plain values of `results.json`. Out: text. Every sentence that judges a result is here, so that report, card and
terminal cannot disagree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from headwise.edits.heads import Grid
from headwise.errors import HeadwiseError
from headwise.plain import Markdown, markdown
from headwise.reports.edit_lists import FEW
from headwise.scoring.stats import FEWEST_CHANGED, claimed

Results = Mapping[str, Any]  # what `headwise.refine` returns and results.json holds

METRICS = {
    "mean_recall": "mean recall",
    "image_retrieval_mean_recall": "text → image, mean of R@1, 5, 10",
    "text_retrieval_mean_recall": "image → text, mean of R@1, 5, 10",
    "acc1": "accuracy (top 1)",
    "acc5": "accuracy (top 5)",
    "mean_per_class_recall": "mean per-class recall",
    "group_mean_acc": "mean accuracy over groups",
    "worst_group_acc": "accuracy of the worst group",
    "multi_object_acc": "accuracy on Cola's pairs",
    "mean_average_precision": "mean average precision",
    "fitness": "weighted mean of the parts' fitness",
}
LONGEST_NAME = 40
_RECALL = re.compile(r"(image|text)_retrieval_recall@(\d+)")


def points(fraction: float | None, digits: int = 2) -> str:
    """0.3012 → `30.12`."""
    if fraction is None or not math.isfinite(fraction):
        return "—"
    text = f"{100 * fraction:.{digits}f}".replace("-", "−")
    return text.removeprefix("−") if not text.strip("−0.") else text


def change(fraction: float | None, digits: int = 2) -> str:
    """0.0128 → `+1.28`, −0.004 → `−0.40`, 0 → `0.00`."""
    text = points(fraction, digits)
    return text if text[0] in "−—" or not text.strip("0.") else f"+{text}"


def interval(ends: Sequence[float] | None) -> str:
    """(0.003, 0.022) → `+0.30 to +2.20`."""
    return "—" if ends is None else f"{change(ends[0])} to {change(ends[1])}"


def p_value(p: float | None) -> str:
    """A p-value as tables print it."""
    if p is None or not math.isfinite(p):
        return "—"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_equals(p: float | None) -> str:
    """A p-value as sentences print it, with its sign."""
    text = p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def plus_minus(error: float | None) -> str:
    """A standard error in points, ` ± 0.42`; empty where there is none."""
    return "" if error is None else f" ± {points(error)}"


def metric_name(name: str) -> str:
    """A metric's name for people; clip_benchmark's `image_retrieval` is text → image."""
    match = _RECALL.fullmatch(name)
    if match:
        return f"{'text → image' if match[1] == 'image' else 'image → text'} R@{match[2]}"
    return METRICS.get(name, name)


def main_metric(results: Results, metrics: Mapping[str, float]) -> str:
    """The metric that was maximised and that intervals are about."""
    fitness = results.get("settings", {}).get("objective", {}).get("fitness", "mean_recall")
    return fitness if fitness in metrics else next(iter(metrics))


def grid_of(results: Results) -> Grid:
    """The grid that results speak of."""
    model = results["model"]
    return Grid(tuple(model["layers"]), model.get("pool_heads", 0))


def counted(number: int, noun: str) -> str:
    """2 → `2 heads`, 1 → `1 head`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """`L0.H1, L0.H2 and 30 more`."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def short_name(source: object) -> str:
    """The last two parts of a path, so that columns stay narrow."""
    parts = PurePosixPath(str(source).split("?")[0]).parts
    name = "/".join(parts[-2:]) if len(parts) > 1 else str(source)
    return name if len(name) <= LONGEST_NAME else "…" + name[-LONGEST_NAME + 1 :]


def size_of(split: Mapping[str, int]) -> str:
    """A split's images and captions, in words."""
    return f"{counted(split['images'], 'image')}, {counted(split['captions'], 'caption')}"


def row_of(results: Results, what: str) -> Mapping[str, Any]:
    """A row of the test table.

    Raises:
        HeadwiseError: there is none of that name.
    """
    for row in results["test"]:
        if row["what"] == what:
            return row
    raise HeadwiseError(f"The results have no row '{what}' in 'test'. Were they written by headwise refine?")


def claim(row: Mapping[str, Any]) -> str:
    """What a row with `interval`, `p` and `changed` allows to claim: `better`, `worse`, `not shown` or `too few changed
    images`."""
    low, high = row["interval"]
    return claimed(low, high, row["p"], row.get("changed", FEWEST_CHANGED))


def claim_sentence(row: Mapping[str, Any]) -> str:
    """The claim of the chosen mask's row on the test split."""
    found = claim(row)
    if found == "better":
        return "The interval excludes 0 and p is at most 0.05: on these data the refined model is better."
    if found == "worse":
        return "The interval lies below 0 and p is at most 0.05: on the test split the refined model is WORSE. Do not use it."
    if found == "not shown":
        low, high = row["interval"]
        if low <= 0 <= high:
            return "The interval includes 0: an improvement is not shown."
        return f"{p_equals(row['p'])} is above 0.05: {'an improvement' if low > 0 else 'a loss'} is not shown."
    return (
        f"Too few changed images: {row['changed']} of the test images changed, and nothing is claimed of fewer than "
        f"{FEWEST_CHANGED}. An improvement is not shown."
    )


def taken_sentence(results: Results) -> str:
    """That a finalist was taken by hand."""
    taken = results["taken"]
    if taken["chosen"]:
        return "It is the mask that the pick split chose."
    return (
        f"It was taken by hand: the choice of the pick split was {taken['instead_of']}. The figures of a mask that was "
        "picked after looking at the test split are flattered."
    )


def against_sentence(one: Results) -> str:
    """A paired evaluation: change, interval, p, queries, and what they allow to claim."""
    told = one["against"]
    queries = told["queries"]
    found = claim(told)
    judged = {
        "better": "The interval excludes 0 and p is at most 0.05: the first is better on these data.",
        "worse": "The interval lies below 0 and p is at most 0.05: the first is worse on these data.",
        "not shown": "A difference is not shown.",
    }
    few = f"Only {told['changed']} images changed, and nothing is claimed of fewer than {FEWEST_CHANGED}."
    return (
        f"{one['dataset']}: {one['mask']} against {told['mask']}: {metric_name(told['fitness'])} {points(told['before'])} → "
        f"{points(told['after'])} %, {change(told['delta'])} points, 95 % interval {interval(told['interval'])}, "
        f"{p_equals(told['p'])}; {queries['gained']:,} queries gained, {queries['lost']:,} lost, of {queries['of']:,}. "
        f"{judged.get(found, few)}"
    )


def power_sentence(results: Results) -> str:
    """The smallest change that these splits could have shown; empty where it is not known."""
    power = results.get("power")
    if not power:
        return ""
    pick, test = (power[name] if power[name] is not None else power[f"{name}_expected"] for name in ("pick", "test"))
    sizes = results["data"]["splits"]
    return (
        f"What these splits could have shown: a true change of about {points(pick)} points on the "
        f"{counted(sizes['pick']['images'], 'pick image')} and {points(test)} on the "
        f"{counted(sizes['test']['images'], 'test image')}, four times in five; smaller ones are mostly missed, and nothing "
        f"below {points(power['test_least'])} points can be claimed at all."
    )


def reads_sentence(results: Results) -> str:
    """How often the test split was read, where that was more than once; else empty."""
    study, cache = results.get("test_reads", 1), results.get("test_reads_cache", 1)
    if max(study, cache) <= 1:
        return ""
    said = [f"this study has read its test split for {study} different chosen masks"] if study > 1 else []
    if cache > study:
        said.append(f"on this machine these test images have been read for {cache} different masks of this model")
    text = "; ".join(said)
    return (
        f"{text[0].upper()}{text[1:]}. The intervals and p do not account for that; the honest figure needs test data that "
        "were never used."
    )


def verdict(results: Results) -> str:
    """What was found, in plain sentences that claim no more than the test split shows."""
    chosen, test = results["chosen"], results["data"]["splits"]["test"]
    heads = grid_of(results).size
    if not chosen["size"]:
        within = " that stays within the kept domains' limit" if results.get("kept") else ""
        return (
            f"No mask was shown to be better than the unchanged model (all {heads} heads kept). Of the "
            f"{counted(len(results['finalists']), 'finalist')}, identity is the choice of the pick split: no mask{within} "
            f"beat it at the level of {results['settings'].get('level', 0.05):g}, corrected for how many were compared. The "
            "refined model is the unchanged model. That does not show that no head hurts."
        )
    before, after = row_of(results, "identity"), row_of(results, "chosen")
    main = main_metric(results, after["metrics"])
    found = (
        f"Editing {chosen['size']} of {heads} heads ({few_edits(chosen)}) changed {metric_name(main)} on the test split from {points(before['metrics'][main])} "
        f"to {points(after['metrics'][main])}: {change(after['delta'])} points, 95 % interval "
        f"{interval(after['interval'])}, {p_equals(after['p'])} ({size_of(test)})."
    )
    return f"{found} {claim_sentence(after)}"


def few_edits(chosen: Results) -> str:
    """The heads with what is done to them; of many the first, and how many more; of what was learned, what and how much."""
    if ", α" in chosen.get("found_by", ""):
        return f"{chosen['found_by']}: {chosen['values']:,} learned values"
    pairs = [f"{head} {edit}" for head, edit in chosen["edits"].items()]
    return listed(pairs) if len(pairs) <= FEW else f"{', '.join(pairs[:3])} and {len(pairs) - 3} more"


def before_after(results: Results) -> Markdown:
    """Every metric before and after on the test split, as a Markdown table."""
    before, after = row_of(results, "identity"), row_of(results, "chosen")
    main = main_metric(results, after["metrics"])
    lines = [
        f"| test split: {size_of(results['data']['splits']['test'])} | before | after | change, points "
        "| 95 % interval | p |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in [main, *(name for name in after["metrics"] if name != main)]:
        old, new = before["metrics"][name], after["metrics"][name]
        tested = ("", "")
        if name == main and results["chosen"]["size"]:
            tested = (interval(after["interval"]), p_value(after["p"]))
        cells = (markdown(metric_name(name)), points(old), points(new), change(new - old), *tested)
        lines.append("| " + " | ".join(cells) + " |")
    return Markdown("\n".join(lines))


def first_order_scores(first: Mapping[str, Any] | None) -> dict[str, float]:
    """Head → first-order score, of an entry of `first_order`; nothing without one."""
    return {row["head"]: row["score"] for row in first["heads"]} if first else {}


def first_order_agreement(first: Mapping[str, Any]) -> str:
    """How far first-order scores agree with exact runs of single heads, as a sentence."""
    rank = first["rank_correlation"]
    loss, fitness = ("undefined" if rank[name] is None else f"{rank[name]:.2f}" for name in ("loss", "fitness"))
    count = f"{rank['heads']} heads" if "heads" in rank else "all heads"
    return (
        f"First-order scores ({first['operator']}) rank {count} as exact runs do with a rank correlation of {loss} "
        f"(by the loss) and {fitness} (by the metric that is maximised)."
    )
