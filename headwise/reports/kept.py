"""What the report and the terminal say of kept domains.

In: results with a `kept` part. Out: a sentence, rows, Markdown; empty without such a part.
"""

from __future__ import annotations

from headwise.plain import Markdown, markdown
from headwise.reports.words import Results, change, counted, interval, p_value, points, size_of

COLUMNS = ("kept domain, test split", "before", "after", "change", "95 % interval", "p")


def kept_section(results: Results) -> Markdown:
    """The kept domains before and after, and which masks they ruled out, as Markdown; empty where there are none."""
    kept = results.get("kept")
    if not kept:
        return Markdown()
    lines = [
        "## Kept domains",
        "",
        markdown(kept_sentence(results)),
        "",
        *table(COLUMNS, kept_rows(kept["domains"])),
        "",
        "Recalls and accuracies are in %, changes in points; each domain's test split was read for the chosen mask "
        "alone. The limit holds for the pick split, where it was checked; the test split shows what came of it.",
        "",
    ]
    out = [row for row in kept["checked"] if not row["passed"]]
    if out:
        names = [domain["data"]["source"] for domain in kept["domains"]]
        rows = [
            (row["mask"], row["found_by"], str(row["size"]), *map(with_error, row["delta"], row["se"])) for row in out
        ]
        lines += [
            f"Ruled out, with what they did to the pick splits (points ± standard error): {counted(len(out), 'mask')} "
            f"of {len(kept['checked'])}.",
            "",
            *table(("mask", "found by", "heads", *names), rows),
            "",
        ]
    return Markdown("\n".join(lines))


def kept_sentence(results: Results) -> str:
    """How many masks the limit ruled out, and whether any mask was left."""
    kept = results["kept"]
    passed = sum(row["passed"] for row in kept["checked"])
    limit = f"at most {kept['max_loss']:g} points on the pick split of every kept domain"
    if not passed:
        return f"No mask of {len(kept['checked'])} that were checked loses {limit}; identity always stays."
    return f"{passed} of {counted(len(kept['checked']), 'mask')} that were checked lose {limit}; the others are out."


def kept_rows(domains: list[Results]) -> list[tuple[str, ...]]:
    """Each kept domain's test split before and after, in the order of `COLUMNS`."""
    rows = []
    for domain in domains:
        data, same = domain["data"], domain["before"] == domain["after"]
        rows.append(
            (
                f"{data['source']}: {size_of(data['splits']['test'])}",
                points(domain["before"][domain["fitness"]]),
                points(domain["after"][domain["fitness"]]),
                change(domain["delta"]),
                "" if same else interval(domain["interval"]),
                "" if same else p_value(domain["p"]),
            )
        )
    return rows


def with_error(delta: float, error: float) -> str:
    """A change in points and its standard error."""
    return f"{change(delta)} ± {points(error)}"


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table; its first column is text."""
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return ["| " + " | ".join(map(markdown, line)) + " |" for line in lines]
