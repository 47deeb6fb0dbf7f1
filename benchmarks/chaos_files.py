"""The commands that chaos.py spoils, what they write and read back, and when two runs wrote the same.

In: the folder of a run. Out: the hash of every file that it wrote, without what depends on history or was measured by a clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

REFINE = "refine demo -o {out} {pairs} --operator zero --device cpu --controls 1"
COMPARE = "compare demo -o {out} {pairs} --operator zero --device cpu --epochs 1 --repeats 1"
EXPLAIN = "explain demo -o {out} {pairs} --operator zero --device cpu --texts {texts}"
COMMANDS = {  # the last one of each is spoilt and repeated, the others come before it
    "refine": (f"{REFINE} --rungs mask --strategy greedy,ga --width 1 --budget 9 --max-heads 2 --finalists 2",),
    "refine by gradients": (f"{REFINE} --rungs mask,scale --strategy bp --epochs 2 --budget 40 --finalists 6",),
    "compare": (f"{COMPARE} --strategy logit,adapter --budget 9",),
    "merge": ("merge demo L0.H1=zero,L2.H3=zero -o {out} --overwrite",),
    "explain": (EXPLAIN,),
    "report": (
        f"{REFINE} --rungs mask --strategy greedy --width 1 --budget 9 --max-heads 1 --finalists 2",
        EXPLAIN,
        f"{COMPARE} --strategy logit --budget 9",
        "report {out} {pairs}",
    ),
}
FILES = {  # that are read back: where they lie below a trial's folder; each is spoilt below every command that writes it
    "study": "out/study.sqlite",
    "head changes": "out/deltas-*.safetensors",
    "learned gates": "out/bp-*.safetensors",
    "learned values": "out/learned-*.safetensors",
    "baselines": "out/baselines/*.safetensors",
    "splits": "out/splits.json",
    "results": "out/results.json",
    "comparison": "out/compare.json",
    "explanation": "out/explanation.json",
    "arrays of an explanation": "out/explanation.safetensors",
    "study of an explanation": "out/explanation.sqlite",
    "pixels": "cache/pixels/*/pixels",
    "index of pixels": "cache/pixels/*/shard.json",
    "caption embeddings": "cache/texts/*",
    "verdict on images": "cache/checked/*",
    "read of the test split": "cache/reads/*/*",
    "timed precision": "cache/precision/*",
    "mask": "out/head_mask.json",
    "values of edits": "out/head_mask.safetensors",
    "merged weights": "out/model.safetensors",
    "weights of a refined model": "out/model/model.safetensors",
}
# for people, or libraries
OURS = ("*.md", "*.html", "*.png", "*.json", "*.toml", "model/*", "*.sqlite-*")
WRITTEN = (*(f"out/{name}" for name in OURS), "cache/pixels/locks/*")
TIMES = {"seconds", "inference", "seconds_per_ffe"}  # measured anew by every comparison
TIMED = ("compare.json", "compare.md", "baselines/*")  # hold them: what else they say is compared


def digests(out: Path) -> dict[str, str]:
    """The hash of every file that a run writes, but the study's and run.toml, which names its folder; of a comparison,
    its numbers without measured times."""
    return {
        str(path.relative_to(out)): hashlib.sha256(content(path, out)).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".sqlite" not in path.name and not path.name.startswith((".headwise-", "run.toml"))
    }


def content(path: Path, out: Path) -> bytes:
    """A file's bytes; of one that holds measured times all else that it says, of `compare.md` that it is the text of
    `compare.json`. A damaged one is its bytes."""
    from headwise.checked import Damaged, load_tensors, read_results
    from headwise.reports.compare import comparison_text

    if any(fnmatch(str(path.relative_to(out)), timed) for timed in TIMED):
        try:
            if path.suffix == ".md":
                text = path.read_text(encoding="utf-8")
                found: object = comparison_text(read_results(path.with_suffix(".json"))) == text
            elif path.suffix == ".json":
                found = untimed(read_results(path))
            else:
                tensors, facts = load_tensors(path)
                found = [untimed(facts), {name: tensor.tolist() for name, tensor in tensors.items()}]
            return json.dumps(found, sort_keys=True).encode()
        except (Damaged, OSError):
            pass
    return path.read_bytes()


def untimed(value: object) -> object:
    """JSON without the entries that hold measured times."""
    if isinstance(value, dict):
        return {key: untimed(inner) for key, inner in value.items() if key not in TIMES}
    return [untimed(inner) for inner in value] if isinstance(value, list) else value


def write_pairs(folder: Path, images: int = 20) -> Path:
    """Some of the packaged pairs as picture files and a table."""
    import pyarrow.parquet as parquet

    from headwise.demo import pairs_file

    (folder / "images").mkdir(parents=True)
    rows: Sequence[dict] = parquet.read_table(pairs_file()).slice(0, images).to_pylist()
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for i, one in enumerate(rows):
            (folder / "images" / f"{i}.png").write_bytes(one["image"]["bytes"])
            file.write(json.dumps({"image": f"images/{i}.png", "captions": one["captions"]}) + "\n")
    return folder / "pairs.jsonl"
