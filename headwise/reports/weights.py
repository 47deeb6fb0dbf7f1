"""What reports and the terminal say of rungs that train weights.

In: results with a `weights` part. Out: a sentence, rows, Markdown; empty without such a part.
"""

from __future__ import annotations

from headwise.plain import Markdown, markdown
from headwise.reports.kept import table
from headwise.reports.words import (
    Results,
    change,
    claim_sentence,
    interval,
    main_metric,
    metric_name,
    p_equals,
    p_value,
    points,
    row_of,
)

COLUMNS = ("trained weights, test split", "values", "after", "change", "95 % interval", "p")


def weights_sentence(results: Results) -> str:
    """Whether the pick split prefers trained weights to all edits, and what they do to the test split."""
    found = results.get("weights")
    if not found:
        return ""
    rungs = list(dict.fromkeys(row["rung"] for row in found["candidates"]))
    preferred = found["preferred"]
    if not preferred:
        out = [row for row in found["candidates"] if not row["passed"]]
        limit = f" {len(out)} of {len(found['candidates'])} lose too much on a kept domain." if out else ""
        instead = "the chosen edits" if results["chosen"]["size"] else "the unchanged model"
        return f"Weights were trained as well ({', '.join(rungs)}); the pick split prefers none of them to {instead}.{limit}"
    holds = "holds the chosen edits of heads" if results["chosen"]["size"] else "is the unchanged model"
    row = next(row for row in found["test"] if row["what"] == preferred["name"])
    again = "It was trained again from search and pick split. " if preferred.get("refit") else ""
    main, before = main_metric(results, row["metrics"]), row_of(results, "identity")
    return (
        f"The pick split prefers trained weights to all edits: {row['what']} ({row['values']:,} values) changed "
        f"{metric_name(main)} on the test split from {points(before['metrics'][main])} to {points(row['metrics'][main])}: "
        f"{change(row['delta'])} points, 95 % interval {interval(row['interval'])}, {p_equals(row['p'])}. "
        f"{claim_sentence(row)} {again}That model is tuned-model/; model/ {holds}."
    )


def weights_rows(results: Results) -> list[tuple[str, ...]]:
    """What the test split was read for, in the order of `COLUMNS`."""
    rows = results["weights"]["test"]
    main = main_metric(results, results["test"][0]["metrics"])
    return [
        (
            row["what"],
            f"{row['values']:,}",
            points(row["metrics"][main]),
            change(row["delta"]),
            interval(row["interval"]),
            p_value(row["p"]),
        )
        for row in rows
    ]


def weights_section(results: Results) -> Markdown:
    """All candidates on the pick split and those that were tested, as Markdown; empty where no weights were trained."""
    found = results.get("weights")
    if not found:
        return Markdown()
    names = [domain["data"]["source"] for domain in (results.get("kept") or {"domains": ()})["domains"]]
    columns = ("trained weights, pick split", "values", "change", "standard error", "p (max-T)", *names, "choice")
    rows = [
        (
            f"{row['rung']}, α {row['alpha']:g}",
            f"{row['values']:,}",
            change(row["pick_delta"]),
            points(row["pick_se"]),
            p_value(row["pick_p"]),
            *(change(each["delta"]) for each in row["kept"]),
            "preferred" if row["preferred"] else "" if row["passed"] else "ruled out",
        )
        for row in found["candidates"]
    ]
    lines = ["## Trained weights", "", markdown(weights_sentence(results)), "", *table(columns, rows), ""]
    if found["test"]:
        lines += ["The best of each on the test split, read once:", "", *table(COLUMNS, weights_rows(results)), ""]
    for domain in found["kept"]:
        told = (
            f"{change(domain['delta'])} points, 95 % interval {interval(domain['interval'])}, {p_equals(domain['p'])}"
        )
        lines += [markdown(f"On the test split of {domain['source']}: {told}."), ""]
    lines += [
        "These are no edits of heads: parameters of the image tower are trained on the search split (LoRA through peft, or the "
        "last projection, held to where it was) and shrunken toward the model (α). The choice is that of the finalists, over "
        "all of them together.",
        "",
    ]
    return Markdown("\n".join(lines))
