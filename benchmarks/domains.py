"""The domains that the packaged model is measured on: drawing styles that it never saw, and new pictures of those it did.

In: what recipes/demo/prepare.py made. Out: pairs as files, in WORK.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from headwise.files import write_files

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("freehand", "openmoji", "noto", "pixel", "openclipart", "gcompris")
DOMAIN = "pretrain_val"


def take(table: pa.Table, most: dict[str, int]) -> pa.Table:
    """At most so many rows of every split, the same ones whatever the order of the rows."""
    order = sorted(range(len(table)), key=lambda i: hashlib.sha256(table["image"][i]["bytes"].as_py()).digest())
    left, kept = dict(most), []
    for i in order:
        name = table["split"][i].as_py()
        if left[name] > 0:
            left[name] -= 1
            kept.append(i)
    return table.take(sorted(kept))


def target_pairs(data: Path, work: Path, target: str, most: dict[str, int]) -> Path:
    """A target's pairs as recipes/demo/package_pairs.py packages them, cut to size."""
    path = work / "pairs" / f"{target}.parquet"
    if not path.exists():
        whole = work / "packaged" / target
        if not (whole / "pairs.parquet").exists():
            script = ROOT / "recipes" / "demo" / "package_pairs.py"
            call = [sys.executable, script, "--data", data, "--target", target, "--out", whole]
            subprocess.run([*map(str, call)], check=True)
        write(path, take(parquet.read_table(whole / "pairs.parquet"), most))
    return path


def trained_pairs(data: Path, work: Path, most: int) -> Path:
    """New pictures of the styles that the model was trained on, each with its first caption."""
    import numpy as np
    from PIL import Image

    path = work / "pairs" / f"{DOMAIN}.parquet"
    if not path.exists():
        lines = (data / "meta.jsonl").read_text(encoding="utf-8").splitlines()
        pictures = np.load(data / "images.npy", mmap_mode="r")
        indices = json.loads((data / "splits.json").read_text())["splits"][DOMAIN]
        rows = []
        for i in sorted(indices, key=lambda i: hashlib.sha256(str(i).encode()).digest())[:most]:
            stream = io.BytesIO()
            Image.fromarray(pictures[i]).save(stream, "PNG")
            captions = json.loads(lines[i])["captions"]
            rows.append({"image": {"bytes": stream.getvalue(), "path": f"{i}.png"}, "captions": captions[:1]})
        write(path, pa.Table.from_pylist(rows))
    return path


def write(path: Path, table: pa.Table) -> None:
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    write_files(path.parent, {path.name: stream.getvalue()})
