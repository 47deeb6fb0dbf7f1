"""Build the pictures, labels and splits that the demo model is trained and measured on, from public packages.

    python recipes/demo/prepare.py all --data build/demo-data

Steps: fetch → records → render → finish, then attributions. Each prints what it did and may be run again:
fetch and render do what is left to do, the others take seconds to a minute and are done anew.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from attributions import training_attributions
from clipart_records import openclipart_records
from common import SIZE, Paths, Record, read_json, read_records, write_records
from deduplicate import deduplicate, digest
from emoji_labels import load_emoji
from fetch import fetch
from icon_records import iconify_records
from photo_records import gcompris_records
from rendering import DONE, open_render, render
from splits import make_classes, make_splits, set_statistics

from headwise.errors import HeadwiseError

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
Data = Annotated[Path, typer.Option(help="Folder to build in; about 6 GB when all is done.")]
DEFAULT_DATA = Path("build/demo-data")


@contextmanager
def told_plainly() -> Iterator[None]:
    """Print what a user can put right, without a traceback."""
    try:
        yield
    except HeadwiseError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def write_json(path: Path, content: object, indent: int | None = None) -> None:
    """Write beside, then rename."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, ensure_ascii=False, indent=indent), encoding="utf-8")
    part.replace(path)


def print_counts(title: str, counts: Mapping[str, int]) -> None:
    """A line per reason or split."""
    print(title)
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"  {count:>8,}  {name}")


def make_records(paths: Paths) -> None:
    """Read names, captions, licences and where each drawing is → work/records.jsonl."""
    index = load_emoji(paths)
    icons, excluded = iconify_records(paths, index)
    clip_art, clip_art_left_out = openclipart_records(paths, index)
    photos, photos_left_out = gcompris_records(paths, index)
    paths.work.mkdir(parents=True, exist_ok=True)
    write_json(
        paths.work / "left_out.json",
        {"excluded": excluded, "openclipart": clip_art_left_out, "gcompris": photos_left_out},
    )
    write_records(paths.records, [*icons, *clip_art, *photos])
    sets = len({record.set for record in icons})
    print(f"records: iconify {len(icons):,} from {sets} sets, openclipart {len(clip_art):,}, gcompris {len(photos):,}")
    unknown = Counter(record.set for record in icons if record.kind == "emoji" and not record.hexcode)
    print(f"  emoji pictures that are no known emoji: {sum(unknown.values())}; icon sets left out: {len(excluded)}")
    print_counts("  openclipart files left out:", clip_art_left_out)
    print_counts("  gcompris files left out:", dict(photos_left_out.most_common(12)))


def write_pictures(paths: Paths, pictures: np.ndarray, kept: Mapping[int, Record]) -> None:
    """images.npy (N, 64, 64, 3) uint8 and meta.jsonl, a line per image."""
    images, meta = paths.data / "images.part", paths.data / "meta.part"
    copy = np.lib.format.open_memmap(images, "w+", np.uint8, (len(kept), SIZE, SIZE, 3))
    with meta.open("w", encoding="utf-8") as stream:
        for i, (row, record) in enumerate(kept.items()):
            copy[i] = pictures[row]
            entry = {
                "idx": i,
                "set": record.set,
                "name": record.name,
                "captions": record.captions,
                "keywords": record.keywords,
                "captions_i18n": record.i18n,
                "concept": record.concept,
                "hexcode": record.hexcode,
                "skin": record.skin,
                "licence": record.licence,
                "author": record.author,
                "category": record.category,
                "subcategory": record.subcategory,
                "coarse": record.coarse,
                "kind": record.kind,
                "palette": record.palette,
            }
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
    copy.flush()
    images.replace(paths.data / "images.npy")
    meta.replace(paths.data / "meta.jsonl")


def finish_dataset(paths: Paths) -> None:
    """Drop blanks and copies, split, count → images.npy, meta.jsonl, splits.json, classes.json, stats.json."""
    records = read_records(paths.records)
    pictures, states = open_render(paths, records, writable=False)
    kept, dropped = deduplicate(records, np.asarray(states) == DONE, digest(pictures))
    write_pictures(paths, pictures, kept)
    splits, stayed = make_splits(kept), list(kept.values())
    write_json(
        paths.data / "splits.json",
        {"about": "rows of images.npy and meta.jsonl; select and test are disjoint by concept", "splits": splits},
    )
    classes = make_classes(stayed, splits, load_emoji(paths))
    write_json(paths.data / "classes.json", classes)
    left_out = read_json(paths.work / "left_out.json")
    counts = {
        "images": len(stayed),
        "pairs_caption": sum(len(record.captions) for record in stayed),
        "pairs_keyword": sum(len(record.keywords) for record in stayed),
        "pairs_i18n": sum(len(record.i18n) for record in stayed),
        "concepts": len({record.concept for record in stayed}),
        "fine": len(classes["fine"]),
        "fine_in_emoji_domains": len(classes["fine_in_emoji_domains"]),
        "fine_in_4_or_more_domains": len(classes["fine_in_4_or_more_domains"]),
    }
    coarse = {name: {d: len(rows) for d, rows in domains.items()} for name, domains in classes["coarse"].items()}
    sizes = {name: len(rows) for name, rows in splits.items()}
    tables = {"dropped": dropped, "splits": sizes, "coarse": coarse, "sets": set_statistics(records, kept)}
    write_json(paths.data / "stats.json", counts | tables | {"left_out": left_out}, indent=1)
    print("finish: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    print_counts("  dropped:", dropped)
    print_counts("  splits:", sizes)


def write_attributions(paths: Paths) -> None:
    """Whose pictures the packaged model is trained on → TRAINING_DATA.md beside this script."""
    text, sets = training_attributions(paths)
    out = Path(__file__).with_name("TRAINING_DATA.md")
    out.write_text(text, encoding="utf-8")
    print(f"attributions: {sets} sets → {out}")


STEPS: dict[str, Callable[[Paths], None]] = {
    "fetch": fetch,
    "records": make_records,
    "render": render,
    "finish": finish_dataset,
    "attributions": write_attributions,
}


def add_command(name: str, step: Callable[[Paths], None]) -> None:
    """A command of the program for one step."""

    def command(data: Data = DEFAULT_DATA) -> None:
        with told_plainly():
            step(Paths(data.resolve()))

    app.command(name, help=step.__doc__)(command)


for _name, _step in STEPS.items():
    add_command(_name, _step)


@app.command("all")
def run_all(data: Data = DEFAULT_DATA) -> None:
    """All steps, in order."""
    with told_plainly():
        for step in STEPS.values():
            step(Paths(data.resolve()))


if __name__ == "__main__":
    app()
