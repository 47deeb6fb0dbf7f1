"""Package one target style as pairs: a Parquet file with its licence, attribution and description.

python recipes/demo/package_pairs.py --data DIR --target openmoji --out headwise/demo/pairs/
"""

import io
import json
import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pair_documents import attribution, licence_text, readme
from pair_selection import Rule, drop_by_rules, one_per_concept, split_of, unambiguous_captions
from PIL import Image

from headwise.errors import HeadwiseError

RULES = Path(__file__).with_name("packaging.toml")
MAX_PICTURES = 2500
MAX_BYTES = 6_000_000


def load_target(data: Path, target: str) -> list[dict]:
    """The metadata of a target's select and test pictures, each with `is_test`.

    Raises:
        HeadwiseError: `data` was not made by prepare.py, or has no such target.
    """
    try:
        splits = json.loads((data / "splits.json").read_text())["splits"]
        lines = (data / "meta.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise HeadwiseError(f"{error.filename} is missing; run `python recipes/demo/prepare.py all` first") from None
    if f"target_{target}_test" not in splits:
        known = sorted(key[7:-5] for key in splits if key.startswith("target_") and key.endswith("_test"))
        raise HeadwiseError(f"no target {target!r} in {data / 'splits.json'}; it has {', '.join(known)}")
    return [
        json.loads(lines[i]) | {"is_test": part == "test"}
        for part in ("select", "test")
        for i in splits[f"target_{target}_{part}"]
    ]


def load_rules(target: str) -> tuple[list[Rule], dict[str, dict]]:
    """The drop rules for a target, and what to say about every source."""
    config = tomllib.loads(RULES.read_text(encoding="utf-8"))
    own = config["target"].get(target, {"drop": []})["drop"]
    return [Rule(**rule) for rule in [*config["common"]["drop"], *own]], config["source"]


def encode(pixels: np.ndarray) -> bytes:
    """(64, 64, 3) uint8 as lossless WebP, the smallest of the lossless formats that were tried.

    Raises:
        HeadwiseError: this Pillow's WebP does not give the same pixels back.
    """
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "WEBP", lossless=True, quality=100, method=6)
    if not np.array_equal(np.asarray(Image.open(stream).convert("RGB")), pixels):
        raise HeadwiseError("lossless WebP changed a picture; use a newer Pillow")
    return stream.getvalue()


def select_rows(pictures: list[dict], rules: list[Rule]) -> tuple[list[dict], Counter[str]]:
    """The rows to package, without their image, and how many pictures were left out why."""
    kept, dropped = drop_by_rules(pictures, rules)
    chosen = one_per_concept(kept, MAX_PICTURES)
    concepts = len({picture["concept"] for picture in kept})
    dropped["another picture of the same concept is packaged"] = len(kept) - concepts
    dropped[f"concepts beyond a fixed sample of {MAX_PICTURES:,}"] = concepts - len(chosen)
    rows = []
    for picture, captions in zip(chosen, unambiguous_captions(chosen), strict=True):
        if not captions:
            dropped["no caption of its own"] += 1
            continue
        split = split_of(picture["concept"], picture["is_test"])
        own = {key: picture[key] for key in ("concept", "category", "keywords", "set", "name", "author", "licence")}
        rows.append({"idx": picture["idx"], "captions": captions, "split": split, **own})
    return rows, +dropped


def write_parquet(rows: list[dict], images: np.ndarray, path: Path) -> None:
    """Write the rows in the order search, pick, test, with the image column as `datasets` writes it."""
    from datasets import Dataset, Features, Image, List, Value

    text = Value("string")
    features = Features(
        image=Image(),
        captions=List(text),
        concept=text,
        split=text,
        category=text,
        keywords=List(text),
        set=text,
        name=text,
        author=text,
        licence=text,
    )
    columns = {key: [row[key] for row in rows] for key in features if key != "image"}
    columns["image"] = [
        {"bytes": encode(np.asarray(images[row["idx"]])), "path": f"{row['set']}-{row['concept']}.webp"} for row in rows
    ]
    part = path.with_suffix(".part")
    Dataset.from_dict({key: columns[key] for key in features}, features=features).to_parquet(part)
    part.replace(path)


def package(data: Path, target: str, out: Path, licence_texts: Path) -> None:
    """Select, encode and write everything; print what was done."""
    rules, sources = load_rules(target)
    pictures = load_target(data, target)
    rows, dropped = select_rows(pictures, rules)
    order = ("search", "pick", "test")
    rows.sort(key=lambda row: (order.index(row["split"]), row["idx"]))
    out.mkdir(parents=True, exist_ok=True)
    parquet = out / "pairs.parquet"
    write_parquet(rows, np.load(data / "images.npy", mmap_mode="r"), parquet)
    size = parquet.stat().st_size
    licences = sorted({row["licence"] for row in rows})
    (out / "LICENSE").write_text(licence_text(licences, licence_texts), encoding="utf-8")
    (out / "ATTRIBUTION.md").write_text(attribution(rows, sources), encoding="utf-8")
    (out / "README.md").write_text(readme(target, rows, dropped, size), encoding="utf-8")

    print(f"{target}: {len(pictures):,} pictures in the target's splits, {len(rows):,} packaged")
    for reason, count in dropped.most_common():
        print(f"  left out {count:>6,}  {reason}")
    print(f"  {'split':<8}{'pictures':>9}{'captions':>9}")
    for split in order:
        part = [row for row in rows if row["split"] == split]
        print(f"  {split:<8}{len(part):>9,}{sum(len(row['captions']) for row in part):>9,}")
    total = sum(file.stat().st_size for file in out.iterdir())
    print(f"  {parquet}: {size:,} bytes; the folder: {total:,} bytes")
    if total > MAX_BYTES:
        raise HeadwiseError(
            f"{out} has {total:,} bytes, more than the {MAX_BYTES:,} to package; sharpen packaging.toml"
        )


def main(
    data: Annotated[Path, typer.Option(help="Folder that prepare.py wrote.")],
    target: Annotated[str, typer.Option(help="openmoji, noto, pixel, freehand, openclipart or gcompris.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    licence_texts: Annotated[Path | None, typer.Option(help="Folder `licenses` of npm's spdx-license-list.")] = None,
) -> None:
    """Package one target style as pairs."""
    texts = licence_texts or data / "npm/node_modules/spdx-license-list/licenses"
    try:
        package(data, target, out, texts)
    except HeadwiseError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
