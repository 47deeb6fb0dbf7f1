"""Tables as programs save them: marks between cells, encodings, spaces; what is no UTF-8 is said in plain letters."""

import base64
import codecs
import json
from pathlib import Path

import pytest

from headwise.data.read import read
from headwise.errors import HeadwiseError
from headwise.plain import terminal
from headwise.wording import command_line

ROWS = [("0.png", "two dogs, one ball"), ("1.png", "café 猫; a cat"), ("0.png", 'say "hi"')]
EXPECTED = (("two dogs, one ball", 'say "hi"'), ("café 猫; a cat",))


def delimited(mark: str, quoted: bool, space: str = "") -> str:
    """A table as a spreadsheet writes it (quoted), or as people type it."""

    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if quoted and (mark in text or '"' in text) else text

    lines = [("image", "caption"), *ROWS]
    return "".join((mark + space).join(map(cell, line)) + "\n" for line in lines)


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_marks_and_encodings_are_seen_in_the_file(images: Path, ending: str, mark: str, encoding: str) -> None:
    text = delimited(mark, quoted=True)
    (images / f"p.{ending}").write_bytes(text.encode(encoding))
    assert read(images / f"p.{ending}").captions == EXPECTED


@pytest.mark.parametrize("bom", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE])
def test_json_lines_and_json_in_other_encodings(images: Path, bom: bytes) -> None:
    encoding = {2: "utf-16", 4: "utf-32"}[len(bom)]
    records = [{"image": image, "caption": caption} for image, caption in ROWS]
    order = "-le" if bom in (codecs.BOM_UTF16_LE, codecs.BOM_UTF32_LE) else "-be"
    (images / "p.jsonl").write_bytes(bom + "\n".join(map(json.dumps, records)).encode(encoding + order))
    (images / "p.json").write_bytes(bom + json.dumps(records).encode(encoding + order))
    assert read(images / "p.jsonl").captions == EXPECTED
    assert read(images / "p.json").captions == EXPECTED


def test_a_header_with_spaces(images: Path) -> None:
    (images / "p.csv").write_text('image, my caption, split\n0.png, "a, b", train\n1.png, c, test\n')
    pairs = read(images / "p.csv", caption="my caption")
    assert pairs.captions == (("a, b",), ("c",))
    assert pairs.splits == ("train", "test")


def test_kaggles_file_of_flickr30k(images: Path) -> None:
    lines = ["0.png| 0| Two dogs , one ball .", '0.png| 1| "A" dog', '1.png| 0|  Say "hi" .', "1.png| 4   A dog ."]
    (images / "results.csv").write_text("image_name| comment_number| comment\n" + "\n".join(lines) + "\n")
    pairs = read(images / "results.csv", skip_bad=True)
    assert pairs.captions == (("Two dogs , one ball .", '"A" dog'), ('Say "hi" .',))
    assert pairs.skipped == 1  # the published file has such a line, without its second mark


def test_excels_hint_and_its_empty_lines(images: Path) -> None:
    (images / "p.csv").write_bytes(b"sep=;\r\nimage;caption;\r\n0.png;a;\r\n1.png;b, c;\r\n;;\r\n;;\r\n")
    assert read(images / "p.csv").captions == (("a",), ("b, c",))
    (images / "p.csv").write_bytes(b"sep=;\r\nimage;caption\r\n0.png;a\r\n1.png\r\n")
    with pytest.raises(HeadwiseError, match=r"line 4: 1 fields, the header has 2"):
        read(images / "p.csv")


def test_a_mark_in_a_caption_is_no_mark_of_the_table(images: Path) -> None:
    (images / "p.csv").write_text("image,caption\n0.png,a|b;c\n1.png,d\te\n")
    assert read(images / "p.csv").captions == (("a|b;c",), ("d\te",))


@pytest.mark.parametrize("mark", ["\t", "|"])
def test_what_pandas_quotes(images: Path, mark: str) -> None:
    import pandas as pd

    captions = [f"a{mark}b", f'say "hi"{mark}', '"quoted"', "plain", "it's"]
    pd.DataFrame({"image": [f"{i}.png" for i in range(5)], "caption": captions}).to_csv(
        images / "p.csv", sep=mark, index=False
    )
    assert read(images / "p.csv").captions == tuple((caption.strip(),) for caption in captions)


def test_other_lines_of_unicode_stay_in_a_caption(images: Path) -> None:
    text = "one\u2028two\u0085three\x0cfour\u2029five"
    (images / "p.csv").write_text(f"image,caption\n0.png,{text}\n1.png,b\n", encoding="utf-8")
    (images / "p.tsv").write_text(f"image\tcaption\n0.png\t{text}\n1.png\tb\n", encoding="utf-8")
    (images / "p.jsonl").write_text(
        json.dumps({"image": "0.png", "caption": text}, ensure_ascii=False) + '\n{"image": "1.png", "caption": "b"}\n',
        encoding="utf-8",
    )
    for name in ("p.csv", "p.tsv", "p.jsonl"):
        assert read(images / name).captions == ((text,), ("b",))


LATIN = "image,caption,group\n0.png,a,x\n1.png,b,y\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LATIN.replace("caption", "légende"), r"Its columns are: image, l\xe9gende, group"),
        (LATIN.replace("1.png", "é.png"), r"\xe9.png does not exist"),
        (LATIN.replace(",y", ",é"), r"line 3: '\xe9' is not valid UTF-8; save the file in this encoding"),
        (LATIN.replace(",b", ",é"), "line 3: the caption is not valid UTF-8"),
    ],
)
def test_what_is_no_utf8_is_said_in_plain_letters(images: Path, text: str, says: str) -> None:
    (images / "p.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(HeadwiseError) as caught:
        read(images / "p.csv")
    assert says in str(caught.value)
    assert str(caught.value).encode("utf-8").isascii()
    assert "udc" not in str(caught.value)


def test_a_message_can_be_printed_everywhere() -> None:
    assert terminal("a\udce9b\x1b[31mred\x1b[0m\x07\x00\u2028\ud800") == r"a\xe9bred\x07\x00\u2028\ud800"
    assert terminal(f"{'caf' + chr(0xDCE9)!r}") == r"'caf\xe9'"
    assert terminal("café\n猫\t🙂") == "café\n猫\t🙂"


def test_options_are_named_as_they_are_typed(images: Path) -> None:
    (images / "p.csv").write_text("picture,words\n0.png,a\n")

    def said(**options: str) -> str:
        with pytest.raises(HeadwiseError) as caught:
            read(images / "p.csv", **options)  # type: ignore
        return str(caught.value)

    assert said().endswith("Say which one it is with image=NAME.")
    assert said(image="picture").endswith("Say which one it is with caption=NAME.")
    with command_line():
        assert said().endswith("Say which one it is with --image NAME.")
        assert said(image="picture").endswith("Say which one it is with --caption NAME.")
    assert "image=NAME" in said()


def test_the_command_line_says_its_own_options(images: Path) -> None:
    from typer.testing import CliRunner

    from headwise.cli.app import app

    (images / "p.csv").write_text("picture,words\n0.png,a\n")
    found = CliRunner().invoke(app, ["data", "check", str(images / "p.csv")])
    assert isinstance(found.exception, HeadwiseError)
    assert "--image NAME" in str(found.exception)
    with pytest.raises(HeadwiseError, match="image=NAME"):  # and afterwards Python says its own again
        read(images / "p.csv")


def test_file_names_that_are_no_utf8(images: Path) -> None:
    import os

    name = os.fsdecode(b"caf\xe9.png")
    (images / "0.png").rename(images / name)
    (images / os.fsdecode(b"caf\xe9.txt")).write_text("a")
    for i in range(1, 10):
        (images / f"{i}.txt").write_text(f"number {i}")
    pairs = read(images)
    assert r"caf\xe9.png" in pairs.ids
    assert pairs.captions[pairs.ids.index(r"caf\xe9.png")] == ("a",)
    json.dumps([pairs.name, pairs.ids, [image.origin for image in pairs.images]], ensure_ascii=False).encode()


@pytest.mark.parametrize(("ending", "mark"), [("tsv", "\t"), ("csv", "|")])
def test_a_line_break_in_a_cell_without_the_rule_of_quotes(images: Path, ending: str, mark: str) -> None:
    captions = ["two\nlines", 'b "q" c', '"start only', "a\n\nb", 'd"', 'with "q"\nand more', "end"]
    cells = ['"' + text.replace('"', '""') + '"' if "\n" in text else text for text in captions]
    rows = [f"{i}.png{mark}{cell}{mark}x" for i, cell in enumerate(cells)]
    (images / f"p.{ending}").write_text("\n".join([f"image{mark}caption{mark}more", *rows]) + "\n")
    assert read(images / f"p.{ending}").captions == tuple((text,) for text in captions)
    rows = [f"{i}.png{mark}{cell}" for i, cell in enumerate(cells)]
    (images / f"q.{ending}").write_text("\n".join([f"image{mark}caption", *rows, f"9.png{mark}a{mark}b"]) + "\n")
    with pytest.raises(HeadwiseError, match="line 13: 3 fields"):
        read(images / f"q.{ending}")
    assert read(images / f"q.{ending}", skip_bad=True).captions == tuple((text,) for text in captions)


def test_blank_lines_before_the_header(images: Path) -> None:
    (images / "p.csv").write_text("\n  \nimage,caption\n0.png,a\n1.png,b,c\n")
    with pytest.raises(HeadwiseError, match="line 5: 3 fields, the header has 2"):
        read(images / "p.csv")
    assert read(images / "p.csv", skip_bad=True).captions == (("a",),)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"PK\x03\x04\x14\x00", "Excel workbook"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"0.png,a cat\n1.png,a dog\n", "the first line must name the columns"),
        (b"0.png#0\ta cat\n1.png#0\ta dog\n", "the first line must name the columns"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_what_is_no_table(images: Path, data: bytes, says: str, ending: str) -> None:
    (images / f"p.{ending}").write_bytes(data)
    with pytest.raises(HeadwiseError, match=says):
        read(images / f"p.{ending}")


def test_keys_that_come_later_in_json_lines(images: Path) -> None:
    rows = [{"image": "0.png", "caption_1": "a"}, {"image": "1.png", "caption_1": "b", "caption_2": "c"}]
    (images / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(images / "p.jsonl").captions == (("a",), ("b", "c"))
    (images / "q.jsonl").write_text('{"image": "0.png"}\n' + json.dumps(rows[1]))
    with pytest.raises(HeadwiseError, match="line 1: the caption is missing"):
        read(images / "q.jsonl")


@pytest.mark.parametrize("name", ["im/é 1.png", "im\\é 1.png", "im/e\u0301 1.png", ".\\im\\e\u0301 1.png"])
@pytest.mark.parametrize("there", ["é 1.png", "e\u0301 1.png"])
def test_names_as_other_systems_spell_them(images: Path, name: str, there: str) -> None:
    (images / "im").mkdir()
    (images / "0.png").rename(images / "im" / there)
    (images / "p.jsonl").write_text("\n".join(json.dumps({"image": x, "caption": "a"}) for x in (name, "1.png")))
    assert len(read(images / "p.jsonl")) == 2


def test_other_spellings_lead_out_of_no_folder(images: Path) -> None:
    inner = images / "in"
    inner.mkdir()
    (images / "1.png").rename(inner / "1.png")
    rows = [("1.png", "a"), ("..\\0.png", "b"), (str(images / "2.png").replace("/", "\\"), "c")]
    (inner / "p.jsonl").write_text("\n".join(json.dumps({"image": x, "caption": y}) for x, y in rows))
    with pytest.raises(HeadwiseError, match="2 of 3 rows are bad"):
        read(inner / "p.jsonl")


@pytest.mark.parametrize("start", ["", "data:image/png;base64,"])
def test_pictures_in_base64(images: Path, start: str) -> None:
    files = [(images / f"{i}.png").read_bytes() for i in range(3)]
    texts = [start + base64.b64encode(data).decode() for data in files]
    rows = "".join(f"{text}\tcat {i}\n" for i, text in enumerate(texts))
    (images / "p.tsv").write_text("image\tcaption\n" + rows)
    pairs = read(images / "p.tsv")
    assert [image.read() for image in pairs.images] == files
    assert pairs.ids == ("line 2", "line 3", "line 4")
    (images / "q.tsv").write_text(f"image\tcaption\n{texts[0]}\ta\n{texts[1][:-7]}\tb\n")
    with pytest.raises(HeadwiseError, match="line 3: the image in base64 is damaged"):
        read(images / "q.tsv")


def test_a_list_is_no_label(images: Path) -> None:
    (images / "p.csv").write_text("image,label\n0.png,cat\n1.png,\"['cat', 'dog']\"\n2.png,dog\n")
    with pytest.raises(HeadwiseError, match=r"line 3: the label .* is a list; one class is needed"):
        read(images / "p.csv")
    (images / "p.json").write_text(json.dumps([{"image": f"{i}.png", "label": ["a", "b"][i:]} for i in range(2)]))
    with pytest.raises(HeadwiseError, match=r"item 0: the label .* is a list; one name is needed"):
        read(images / "p.json")


def test_lists_named_as_splits(images: Path) -> None:
    parts = {"train": [{"image": "0.png", "caption": "a"}], "val2017": [{"image": "1.png", "caption": "b"}]}
    (images / "p.json").write_text(json.dumps(parts))
    assert read(images / "p.json").splits == ("train", "val2017")
    (images / "p.json").write_text(json.dumps({"cats": parts["train"], "dogs": parts["val2017"]}))
    with pytest.raises(HeadwiseError, match=r"several lists of records \(cats, dogs\)"):
        read(images / "p.json")
