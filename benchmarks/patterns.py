"""Are harmful heads different from the others? `headwise explain` on given models and pairs, its findings as Markdown.

    python benchmarks/patterns.py | python benchmarks/into_docs.py docs/patterns.md demo
    python benchmarks/patterns.py MODEL=PAIRS …    # any others: the six domains, a larger model

The edited heads are those whose removal gains on the images for labelling, by the sweep there: they are chosen without
the images that the gain is then measured on.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import headwise
from headwise.data.splits import split
from headwise.search.sweep import Sweep

OPERATOR = "zero"
SHARE = 1 / 6  # of the heads that count as harmful: those with the largest gains


def harmful(model: str, pairs: str) -> headwise.Mask:
    """The heads whose removal gains most on the search split."""
    given = headwise.read(pairs)
    searched = given.subset(split(given).search)
    swept: Sweep = headwise.sweep(model, searched, operator=OPERATOR)[0]
    gaining = [effect.head for effect in sorted(swept.heads, key=lambda one: -one.delta) if effect.delta > 0]
    most = max(2, round(SHARE * len(swept.heads)))
    return headwise.Mask.suppress(headwise.load(model).tower.grid, gaining[:most], OPERATOR)


def row(test: Mapping) -> str:
    """One property of the table."""
    means = "" if test["edited"] is None else f"{test['edited']:.3g} / {test['others']:.3g}"
    return f"| {test['property']} | {test['outcome']} | {test['r']:+.2f} | {test['p']:.2g} | {means} |"


def main() -> None:
    """Print what was found for each source."""
    for name in sys.argv[1:] or ["demo=demo"]:
        model, _, pairs = name.partition("=")
        mask = harmful(model, pairs)
        with tempfile.TemporaryDirectory() as folder:
            found = headwise.explain(model, pairs, Path(folder) / "out", mask=mask, operator=OPERATOR)
        patterns = found["patterns"]
        heads = ", ".join(map(str, mask.heads))
        print(f"## {model} on {pairs}\n")
        print(
            f"{patterns['heads']} heads; {found['data']['label_images']:,} images for labelling, "
            f"{found['data']['check_images']:,} for checking. Harmful heads, by the search split: {heads}.\n"
        )
        for sentence in [*patterns["sentences"], *summary(found)]:
            print(f"- {sentence}")
        print("\n| property | against | rank correlation | corrected p | harmful / others |\n|---|---|---:|---:|---|")
        print("\n".join(map(row, patterns["tests"])) + "\n")


def summary(found: Mapping) -> list[str]:
    """The explanation in short."""
    from headwise.report.explanation import summary as sentences

    return sentences(found)


if __name__ == "__main__":
    main()
