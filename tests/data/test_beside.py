"""Sources beside the main one (`--keep-domain`): columns that were named count where they have them."""

import csv
import io
from pathlib import Path

import pytest
from PIL import Image

from headwise.data.read import read, read_beside
from headwise.errors import HeadwiseError

NAMED = {"image": "bild", "caption": "titel", "split": "teil"}


def table(folder: Path, columns: tuple[str, ...], images: str = "") -> Path:
    """Six pictures of one colour; every cell of a column but the image's says its column and its row."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i in range(6):
            Image.new("RGB", (8, 8), (40 * i, 10, 10)).save(folder / images / f"{i}.png")
            writer.writerow([f"{i}.png", *(f"{name} {i % 3 if name == 'y' else i}" for name in columns[1:])])
    return folder / "t.csv"


def first(source: object, **columns: object) -> str:
    return read_beside(source, columns).captions[0][0]


def test_a_named_column_counts_where_it_is_there(tmp_path):
    both = table(tmp_path / "same", ("bild", "caption", "titel", "teil"))
    assert read_beside(str(both), NAMED).captions == read(str(both), **NAMED).captions
    assert read_beside(str(both), NAMED).splits == tuple(f"teil {i}" for i in range(6))
    own = str(table(tmp_path / "own", ("image", "caption", "split")))
    assert first(own, **NAMED) == "caption 0"
    assert read_beside(own, NAMED).splits == read(own).splits
    part = str(table(tmp_path / "part", ("image", "caption", "titel")))
    assert first(part, **NAMED) == "titel 0"  # each column by itself
    assert first(part, caption="titel,sottotitolo") == "caption 0"  # all of several, or none


def test_what_follows_the_name_comes_first_and_has_to_be_there(tmp_path):
    source = str(table(tmp_path, ("image", "caption", "titel", "y")))
    assert first(f"{source}?caption=caption", caption="titel") == "caption 0"
    assert read_beside(f"{source}?label=y", {"caption": "titel"}).class_names == ("y 0", "y 1", "y 2")
    assert first(f"{source}?caption=titel", label="y") == "titel 0"
    with pytest.raises(HeadwiseError, match="no column 'legende'"):
        first(f"{source}?caption=legende", caption="titel")


def test_the_folder_of_the_images_is_the_first_sources_alone(tmp_path):
    near = str(table(tmp_path / "near", ("image", "caption")))
    assert first(near, images=str(tmp_path / "elsewhere")) == "caption 0"
    far = str(table(tmp_path / "far", ("image", "caption"), "pictures"))
    assert first(f"{far}?images={tmp_path / 'far' / 'pictures'}") == "caption 0"


def test_sources_without_columns_take_no_notice(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    assert first([(stream.getvalue(), "a cat"), (stream.getvalue(), "a dog")], **NAMED) == "a cat"
    mixed = tmp_path / "mix.json"
    parts = [{"name": n, "source": str(table(tmp_path / n, ("image", "caption")))} for n in ("a", "b")]
    import json

    mixed.write_text(json.dumps({"parts": parts}))
    plain = read(f"mix:{mixed}")
    assert read_beside(f"mix:{mixed}", NAMED).captions == plain.captions


def test_a_misspelt_option_is_an_error(tmp_path):
    with pytest.raises(HeadwiseError, match="Did you mean caption"):
        read_beside("demo", {"captoin": "titel"})


def test_images_alone_are_each_counted_once(tmp_path):
    """A table with a row a caption holds every picture's bytes several times."""
    pictures = []
    for i in range(4):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (40 * i, 10, 10)).save(stream, "PNG")
        pictures += [stream.getvalue()] * 5
    source = {"image": pictures, "caption": [f"text {i}" for i in range(20)]}
    assert len(read(source)) == len(read_beside(source, {}, bare=True)) == 4
