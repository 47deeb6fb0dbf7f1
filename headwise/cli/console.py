"""What the command line prints: results, on standard output; progress is `telling.py`.

In: results as plain JSON values. Out: tables, sentences, or JSON. Sentences that judge come from `reports/words.py`;
everything printed passes `plain.py`, because it holds paths, captions and names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from headwise.cli.telling import PLAIN, err
from headwise.plain import json_text, line, terminal
from headwise.reports import beside, kept, weights, words
from headwise.reports.edit_lists import shortened

if TYPE_CHECKING:
    from headwise.data.check import Report


out = Console(width=None if sys.stdout.isatty() else 120, **PLAIN)  # wide enough for a table in a log


def say(text: str) -> None:
    """Print a sentence, or lines, of results."""
    out.print(terminal(text), soft_wrap=True)


def print_json(value: object) -> None:
    """A value as JSON on standard output; characters that it cannot show are escaped as JSON does."""
    text = json_text(value, indent=2)
    utf = (sys.stdout.encoding or "").lower().startswith("utf")
    print(text if utf else json.dumps(value, indent=2))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: bool = False, to: Console = out
) -> None:
    """A table; its first column is text, and the others are numbers unless `text` is set."""
    table = Table(title=line(title), title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(line(column), justify="left" if text or i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(line, row))
    to.print(table)


def print_profile(rows: Sequence[tuple[str, str, int, str]], path: object) -> None:
    """Where the time went, beside the progress: results keep standard output for themselves."""
    table = [(name, seconds, f"{calls:,}", passes) for name, seconds, calls, passes in rows]
    print_table("Where the time went", ("part", "seconds", "calls", "FFE"), table, to=err)
    err.print(terminal(f"Written to {path}: a trace for ui.perfetto.dev or chrome://tracing"), soft_wrap=True)


def print_evaluations(found: Sequence[Mapping]) -> None:
    """One table for all sources; published figures beside measured ones where they are known."""
    rows = []
    for one in found:
        published = {row["metric"]: row for row in one["reference"]}
        for i, (name, value) in enumerate(one["metrics"].items()):
            known = published.get(name)
            expected = "" if known is None else words.points(known["expected"]) + (" !" if known["deviates"] else "")
            rows.append((one["dataset"] if i == 0 else "", words.metric_name(name), words.points(value), expected))
        rows.append(("", words.size_of(one), "", ""))
        rows += [("", note, "", "") for note in _notes(one)]
    anything = any(one["reference"] for one in found)
    columns = ("data", "metric", "%", "published")
    if not anything:
        rows, columns = [row[:3] for row in rows], columns[:3]
    print_table(f"{found[0]['model']}, mask {shortened(found[0]['mask'])}", columns, rows)
    if any(row["deviates"] for one in found for row in one["reference"]):
        say("! differs from the published figure by more than 0.5 points: check the data and preprocessing.")
    for one in found:
        if "against" in one:
            _print_against(one)


def _print_against(one: Mapping) -> None:
    """A paired comparison: its sentence, the groups that lose and gain most, the queries that changed most."""
    told = one["against"]
    say(words.against_sentence(one))
    if groups := told.get("groups"):
        shown = groups if len(groups) <= 20 else [*groups[:10], *groups[-10:]]
        rows = [
            (
                g["name"],
                f"{g['images']:,}",
                words.change(g["delta"]),
                words.interval(g["interval"]),
                words.p_value(g["p_corrected"]),
                f"{g['gained']:,}",
                f"{g['lost']:,}",
            )
            for g in shown
        ]
        title = f"Change by {told['by']}, points; {len(shown)} of {len(groups)}, largest losses first"
        columns = (told["by"], "images", "change", "95 % interval", "p, corrected", "queries gained", "lost")
        print_table(title, columns, rows)
    for what, queries in told["queries"]["examples"].items():
        rows = [(q["text"] or q["image_id"], q["image_id"], f"{q['before']:,} → {q['after']:,}") for q in queries[:5]]
        if rows:
            print_table(f"Queries {what}, the largest changes", ("query", "image", "rank"), rows)


def _notes(one: Mapping) -> list[str]:
    """What to know of an evaluation's numbers: images left out, equal captions, earlier reads."""
    notes, searched, equal = [], one.get("searched", {}), one.get("equal_captions", {})
    if searched.get("images"):
        what = "left out" if searched["left_out"] else "scored all the same"
        notes.append(f"{searched['images']:,} images that the mask was searched or picked on: {what}")
    if equal.get("captions"):
        notes.append(f"{equal['captions']:,} captions equal those of another image: {equal['rule']} (--equal-captions)")
    if told := one.get("distractors"):
        notes.append(beside.distractors_sentence(told))
    if one.get("test_reads_cache", 0) > 1:
        notes.append(f"these images have been read for {one['test_reads_cache']} different masks of this model")
    return notes


def print_plan(results: Mapping, whose: str = "") -> None:
    """What each stage of a run would cost.

    Arguments:
        whose: the budget is for all, or `of each method`.
    """
    stages = results["stages"]
    rows = [(s["stage"], f"{s['ffe']:.1f}", f"{s['most']:.1f}", f"{s['minutes']:.2f}") for s in stages]
    bounded = [stage for stage in stages if stage["bounded"]]
    ffe, minutes = sum(s["ffe"] for s in bounded), sum(s["minutes"] for s in bounded)
    most = "" if whose else f"{results['budget']:.1f}"
    rows.append(("all before the test split", f"{ffe:.1f}", most, f"{minutes:.2f}"))
    print_table("Plan; nothing was searched", ("stage", "FFE, about", "up to", "minutes, about"), rows)
    if whose:
        say(f"{results['budget']:.1f} FFE {whose}.")


def print_refined(results: Mapping, folder: object) -> None:
    """The outcome of a refine: the test table, the verdict, where it was written."""
    rows, shown = [], _shown(results)
    for row in results["test"]:
        metrics = row["metrics"]
        name = row["what"] + (f" ({row['count']} masks)" if row["count"] > 1 else "")
        tested = ("", "", "")
        if row["size"]:
            tested = (words.change(row["delta"]), words.interval(row["interval"]), words.p_value(row["p"]))
        rows.append((name, str(row["size"]), *(words.points(metrics[key]) for key in shown.values()), *tested))
    title = f"Test split: {words.size_of(results['data']['splits']['test'])}; in %, change in points"
    columns = ("", "heads", *shown, "change", "95 % interval", "p")
    print_table(title, columns, rows)
    say(words.verdict(results))
    if sentence := weights.weights_sentence(results):
        print_table("Trained weights; in %, change in points", weights.COLUMNS, weights.weights_rows(results))
        say(sentence)
    for first in results["first_order"]:
        if first["rank_correlation"]:
            say(words.first_order_agreement(first))
    if not results["sweep"]:
        say("No sweep was run; first-order scores ranked the heads.")
    if results["kept"]:
        print_table(kept.kept_sentence(results), kept.COLUMNS, kept.kept_rows(results["kept"]["domains"]))
    told = (words.power_sentence(results), words.reads_sentence(results), *results.get("warnings", ()))
    for sentence in (*beside.beside(results), *told):
        if sentence:
            say(sentence)
    tuned = ", tuned-model/" if results.get("weights", {}).get("preferred") else ""
    say(f"Written to {folder}: report.html, report.md, heads.png, head_mask.json, results.json, model/{tuned}")


def _shown(results: Mapping) -> dict[str, str]:
    """Which metrics the table has room for: heading → name. What was maximised is among them."""
    metrics = results["test"][0]["metrics"]
    if parts := results["data"].get("parts"):
        each = [f"{part['name']}/{part['fitness']}" for part in parts[:4]]
        return {"fitness": "fitness"} | {name: name for name in each}
    if "mean_recall" in metrics:
        return {
            "t2i R@1": "image_retrieval_recall@1",
            "i2t R@1": "text_retrieval_recall@1",
            "mean recall": "mean_recall",
        }
    main = words.main_metric(results, metrics)
    names = [*(name for name in ("acc1", "mean_per_class_recall") if name in metrics and name != main), main]
    return {words.metric_name(name): name for name in names}


def print_comparison(results: Mapping, folder: object) -> None:
    """All methods of a compare, and what the table shows."""
    from headwise.reports.compare import findings

    rows = []
    for row in results["rows"]:
        heads = "" if row["heads"] is None else "–".join(map(str, sorted({min(row["heads"]), max(row["heads"])})))
        test, ffe = row["test"], row["ffe"]
        tested = (words.change(test["delta"]), words.interval(test["interval"]), words.p_value(test["p"]))
        rows.append(
            (
                row["method"],
                row["operator"] or "",
                heads,
                *(
                    ("", "", "", "")
                    if row["method"] == "identity"
                    else (*tested, words.change(row["test_by_search"]["delta"]))
                ),
                "" if ffe is None else f"{ffe:,.1f}",
                f"{row['trained']:,}",
            )
        )
    columns = ("method", "edit", "heads", "change", "95 % interval", "p", "by search", "FFE", "trained")
    measure = words.metric_name(results["settings"]["fitness"])
    print_table(f"Test split: change of {measure}, points", columns, rows)
    for sentence in findings(results):
        say(sentence)
    say(f"Written to {folder}: compare.md, compare.json, compare.png")


def print_transfer(results: Mapping, folder: object) -> None:
    """The matrix of a transfer, and the mask that serves all data best."""
    from headwise.reports.edit_lists import against
    from headwise.reports.transfer import best_sentence

    first = results["masks"][0]["mask"]
    rows = [
        (
            against(row["mask"], first, "the first"),
            words.short_name(row["found_on"]),
            *(f"{words.change(c['delta'])} ({words.interval(c['interval'])})" for c in row["test"]),
        )
        for row in results["masks"]
    ]
    names = [words.short_name(data["source"]) for data in results["data"]]
    measure = words.metric_name(results["fitness"])
    print_table(f"Test splits: change of {measure}, points (95 % interval)", ("mask", "found on", *names), rows)
    say(best_sentence(results))
    say(f"Written to {folder}: transfer.md, transfer.json, transfer.png")


def print_check(report: Report) -> None:
    """What `headwise data check` found."""

    def counts(values: Mapping) -> str:
        shown = [f"{key}: {value:,}" for key, value in list(values.items())[:12]]
        return ", ".join(shown) + (f" and {len(values) - 12} more" if len(values) > 12 else "")

    rows = [
        ("images", f"{report.images:,}"),
        ("captions", f"{report.captions:,}"),
        ("captions per image → images", counts(report.captions_per_image)),
        ("splits", counts(report.splits) or "none given"),
        ("groups", counts(report.groups) or "none given"),
        ("classes", counts(report.classes) or "none given"),
        ("same image more than once", f"{len(report.duplicates):,} sets"),
        ("images that look the same", f"{len(report.near_duplicates):,} pairs"),
        ("of these, across splits", f"{report.across_splits:,}"),
        ("captions of several images", f"{report.repeated_captions:,}"),
        ("bad rows", f"{len(report.bad):,}"),
        ("hash", report.hash),
    ]
    print_table(report.name, ("", "found"), rows, text=True)
    print_table(
        "Samples", ("image", "captions or class"), [(name, " | ".join(texts)) for name, texts in report.samples]
    )
    if report.bad:
        listed = [(bad.origin, bad.reason) for bad in report.bad[:20]]
        print_table(f"Bad rows (first {len(listed)} of {len(report.bad):,})", ("where", "why"), listed, text=True)
        say("Mend them, or leave them out with --skip-bad.")
    for note in report.notes:
        say(note)
