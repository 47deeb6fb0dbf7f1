"""What the null of labels withholds, and whether labels can be checked at all.

    python benchmarks/patterns.py --out FOLDER --most-images 300 demo=noto.parquet=category …    # once
    python benchmarks/labels.py --out FOLDER noto.parquet … | python benchmarks/into_docs.py docs/explanation.md labels

Per source: heads that pass the null; of what would be chosen without it, the texts that can be checked (five images for
checking have them, and five lack them); then with those texts alone as candidates and no head withheld: first texts
whose r with the captions is more than chance (Fisher's z, Bonferroni over heads, 5 %), those that stand out among texts
of like frequency (q < 0.05, Benjamini and Hochberg over heads; with n texts p is 1/n at least), and the same two of the
heads that pass the null. A null that labels nothing where labels would hold is too strict; one that labels heads whose
labels do not hold is too lax.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

import headwise
from headwise.explanation import evidence
from headwise.explanation.checks import LEAST
from headwise.explanation.effects import Effects
from headwise.explanation.evidence import captions_of, label_evidence, vocabulary
from headwise.explanation.labels import Label, label_all
from headwise.explanation.texts import Candidates, candidates, presence
from headwise.jobs.steps.tasks import embed_texts

LEVEL = 0.05
FEWEST = 8  # candidates that are worth choosing among
HEADING = """\
| pairs | images to label / check | heads labelled | chosen texts that can be checked, none withheld | texts that can be checked | of these alone, none withheld: first texts with r beyond chance | that stand out | largest r | heads labelled | with r beyond chance |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"""


def unjudged(*args: Any, **options: Any) -> list[Label]:
    """Labels of every head, none withheld."""
    found = label_all(*args, **{**options, "draws": 1})
    return [replace(one, null=tuple(0.0 for _ in one.null)) for one in found]


def labelled(effects: Effects, words: Candidates, captions: list, model: Any, judge: Callable) -> list[dict]:
    """Evidence of every head's labels, withheld as `judge` does."""
    evidence.label_all = judge
    return label_evidence(effects, vocabulary(words, embed_texts(model, words.texts), captions))


def holds(text: Mapping[str, Any]) -> bool:
    """On images for checking."""
    return text["q"] is not None and text["q"] < LEVEL


def beyond(text: Mapping[str, Any], images: int, heads: int) -> bool:
    """r is more than chance, looked at for so many heads."""
    if text["r"] is None:
        return False
    z = math.atanh(min(0.999, abs(text["r"]))) * math.sqrt(images - 3)
    return math.erfc(z / math.sqrt(2)) * heads < LEVEL


def row(source: str, folder: Path, model: Any) -> str:
    """One line of the table."""
    pairs, known = headwise.read(source), json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    place = {name: i for i, name in enumerate(pairs.ids)}
    parts = {p: pairs.subset([place[i["id"]] for i in known["images"] if i["part"] == p]) for p in ("label", "check")}
    own, other = captions_of(parts["label"]), captions_of(parts["check"])
    arrays = load_file(folder / known["arrays"]["file"])
    effects = Effects(tuple(model.tower.grid), arrays["total"], np.asarray(arrays["identity"]), len(own), {})
    every = candidates(own, [])
    passed = sum(not head["labels"]["abstains"] for head in known["heads"])
    chosen = [text for head in labelled(effects, every, other, model, unjudged) for text in head["texts"]]
    checked = sum(text["r"] is not None for text in chosen)
    counts = presence(every.texts, other).sum(1)
    fit = [i for i, count in enumerate(counts) if LEAST <= count <= len(other) - LEAST]
    few = Candidates(tuple(every.texts[i] for i in fit), tuple(every.themes[i] for i in fit))
    left = f"| {Path(source).stem} | {len(own)} / {len(other)} | {passed} | {checked} of {len(chosen)} | {len(few)} "
    if len(few) < FEWEST:
        return left + "| too few | | | | |"
    loose, strict = (labelled(effects, few, other, model, judge) for judge in (unjudged, label_all))
    first, kept = ([head["texts"][0] for head in found if head["texts"]] for found in (loose, strict))
    best = max(first, key=lambda text: abs(text["r"] or 0.0))
    sure, some = (sum(beyond(text, len(other), len(first)) for text in found) for found in (first, kept))
    return left + f"| {sure} | {sum(map(holds, first))} | {best['r']:+.2f} | {len(kept)} | {some} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="What benchmarks/patterns.py wrote.")
    parser.add_argument("--model", default="demo")
    parser.add_argument("sources", nargs="+")
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    model = headwise.load(asked.model)
    print(HEADING)
    for source in asked.sources:
        print(row(source, asked.out / Path(source).stem, model), flush=True)


if __name__ == "__main__":
    main()
