"""Are harmful heads different from the others? `headwise explain` on given models and pairs, its findings as Markdown.

    python benchmarks/patterns.py --out FOLDER | python benchmarks/into_docs.py docs/patterns.md demo
    python benchmarks/patterns.py --out FOLDER MODEL=PAIRS=GROUP …    # the six domains, a larger model

Harmful heads are those whose removal gains most on the images for labelling: they are chosen without the images that
properties and gains are then measured on. FOLDER keeps the explanations; the same command continues there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

import headwise
from headwise.data.pairs import Pairs
from headwise.explanation.patterns import LEVEL, patterns_json
from headwise.jobs.steps.tasks import Goal, make_task
from headwise.reports.explanation import summary

SHARE = 1 / 6  # of the heads that count as harmful, if their removal gains at all


def label_gains(model: str, pairs: Pairs, found: Mapping, folder: Path) -> list[float]:
    """Change of the fitness without each head, on the images for labelling, from the effects that were kept."""
    ready = headwise.load(model)
    place = {name: i for i, name in enumerate(pairs.ids)}
    images = [place[image["id"]] for image in found["images"] if image["part"] == "label"]
    score = make_task(ready, pairs, Goal()).objective(ready, pairs, images, "cpu")
    arrays = load_file(folder / found["arrays"]["file"])
    whole = arrays["identity"][: len(images)]  # (N, E)
    before = score(whole).fitness
    return [score(whole - own[: len(images)].float()).fitness - before for own in arrays["total"]]


def harmful(gains: list[float]) -> set[int]:
    """The heads whose removal gains most."""
    order = sorted((row for row, gain in enumerate(gains) if gain > 0), key=lambda row: -gains[row])
    return set(order[: max(2, round(SHARE * len(gains)))])


def line(test: Mapping) -> str:
    """One property of the table."""
    means = "" if test["edited"] is None else f"{test['edited']:.3g} / {test['others']:.3g}"
    return f"| {test['property']} | {test['outcome']} | {test['r']:+.2f} | {test['p']:.2g} | {means} |"


def together(found: Mapping[str, Mapping]) -> list[str]:
    """Every property's rank correlation with gain and with being harmful, all sources side by side."""
    tests = {name: {(t["property"], t["outcome"]): t for t in one["tests"]} for name, one in found.items()}
    names = list(dict.fromkeys(key for own in tests.values() for key in own))
    lines = ["| property | against | " + " | ".join(tests) + " |", "|---|---|" + "---:|" * len(tests)]
    for key in sorted(names, key=lambda key: key[1] != "gain"):
        cells = []
        for own in tests.values():
            test = own.get(key)
            cells.append("—" if test is None else f"**{test['r']:+.2f}**" if test["p"] < LEVEL else f"{test['r']:+.2f}")
        lines.append(f"| {key[0]} | {key[1]} | " + " | ".join(cells) + " |")
    return ["## All together", "", "Rank correlations; bold: corrected p < 0.05 within that source.", "", *lines, ""]


def section(model: str, source: str, group: str | None, folder: Path, most: int) -> tuple[list[str], Mapping]:
    """What was found for one source, as text and as tests."""
    pairs = headwise.read(source, group=group)
    found = headwise.explain(model, pairs, folder, most_images=most)
    chosen = harmful(label_gains(model, pairs, found, folder))
    heads = [{**card, "edited": row in chosen} for row, card in enumerate(found["heads"])]
    patterns, names = patterns_json(heads), [card["head"] for card in heads if card["edited"]]
    text = [
        f"## {model} on {source}",
        "",
        f"{patterns['heads']} heads; {found['data']['label_images']:,} images for labelling, "
        f"{found['data']['check_images']:,} for checking; columns: {group or 'none'}. Harmful: {', '.join(names) or 'none'}.",
        "",
        *(f"- {sentence}" for sentence in [*patterns["sentences"], *summary(found)]),
        "",
        "| property | against | rank correlation | corrected p | harmful / others |",
        "|---|---|---:|---:|---|",
        *map(line, patterns["tests"]),
        "",
    ]
    return text, patterns


def main() -> None:
    """Print what was found for each source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most-images", type=int, default=1000)
    parser.add_argument("sources", nargs="*", default=["demo=demo=set"])
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    every: dict[str, Mapping] = {}
    texts: list[str] = []
    for number, name in enumerate(asked.sources):
        model, source, *group = name.split("=")
        folder = asked.out / (Path(source).stem or str(number))
        text, every[folder.name] = section(model, source, group[0] if group else None, folder, asked.most_images)
        texts += text
    print("\n".join([*(together(every) if len(every) > 1 else []), *texts]))


if __name__ == "__main__":
    main()
