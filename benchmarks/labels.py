"""What the null of labels withholds: every head labelled, whatever random directions do, and its labels checked.

    python benchmarks/patterns.py --out FOLDER --most-images 300 demo=noto.parquet=category …    # once
    python benchmarks/labels.py --out FOLDER noto.parquet … | python benchmarks/into_docs.py docs/explanation.md labels

Per source: heads that pass the null; and, of all heads, those whose first text, and any of whose five texts, holds on
images for checking (q < 0.05, Benjamini and Hochberg over heads). A null that labels nothing where labels would hold is
too strict; one that labels heads whose labels do not hold is too lax.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

import headwise
from headwise.explanation import evidence
from headwise.explanation.effects import Effects
from headwise.explanation.evidence import captions_of, label_evidence, vocabulary
from headwise.explanation.labels import Label, label_all
from headwise.explanation.texts import candidates
from headwise.jobs.steps.tasks import embed_texts

LEVEL = 0.05


def unjudged(*args: Any, **options: Any) -> list[Label]:
    """Labels of every head, none withheld."""
    found = label_all(*args, **{**options, "draws": 1})
    return [replace(one, null=tuple(0.0 for _ in one.null)) for one in found]


def row(source: str, folder: Path, model: Any) -> str:
    """One line of the table."""
    pairs, known = headwise.read(source), json.loads((folder / "explanation.json").read_text(encoding="utf-8"))
    place = {name: i for i, name in enumerate(pairs.ids)}
    parts = {p: pairs.subset([place[i["id"]] for i in known["images"] if i["part"] == p]) for p in ("label", "check")}
    arrays = load_file(folder / known["arrays"]["file"])
    effects = Effects(
        tuple(model.tower.grid), arrays["total"], np.asarray(arrays["identity"]), len(parts["label"]), {}
    )  # fmt: skip
    words = candidates(captions_of(parts["label"]), [])
    found = label_evidence(effects, vocabulary(words, embed_texts(model, words.texts), captions_of(parts["check"])))
    passed = sum(not head["labels"]["abstains"] for head in known["heads"])
    tested = [text for head in found for text in head["texts"] if text["q"] is not None]
    first = [head["texts"][0] for head in found if head["texts"]]
    held = sum(text["q"] is not None and text["q"] < LEVEL for text in first)
    any_held = sum(any(t["q"] is not None and t["q"] < LEVEL for t in head["texts"]) for head in found)
    best = max((abs(text["r"]) for text in tested), default=float("nan"))
    testable = sum(text["q"] is not None for text in first)
    return (
        f"| {Path(source).stem} | {len(parts['label'])} / {len(parts['check'])} | {passed} of {len(found)} "
        f"| {held} of {testable} | {any_held} | {best:.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="What benchmarks/patterns.py wrote.")
    parser.add_argument("--model", default="demo")
    parser.add_argument("sources", nargs="+")
    asked = parser.parse_args()
    torch.set_grad_enabled(False)
    evidence.label_all = unjudged  # type: ignore[assignment]
    model = headwise.load(asked.model)
    print(
        "| pairs | images to label / check | heads that pass the null | first texts that hold, all heads labelled | heads with a text that holds | best \\|r\\| |"
    )
    print("|---|---|---:|---:|---:|---:|")
    for source in asked.sources:
        print(row(source, asked.out / Path(source).stem, model), flush=True)


if __name__ == "__main__":
    main()
