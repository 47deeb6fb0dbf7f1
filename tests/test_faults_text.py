"""Text from outside is text: paths, captions and names that mean something to a terminal, Markdown, YAML or TeX."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_pairs
from hostile import HOSTILE, html
from yaml import safe_load

from headwise import Grid, Mask
from headwise.plain import argument, code, json_text, line, literal, markdown, picture, terminal, yaml

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]")


def visible(page: str) -> str:
    from html import unescape

    return unescape(re.sub(r"<[^>]*>", "", page)).strip("\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_shows_the_characters_and_nothing_else(text):
    page = html(f"Of {markdown(text)}, a word.")
    assert visible(page) == f"Of {line(text)}, a word."
    assert set(re.findall(r"</?(\w+)", page)) == {"p"}
    page = html(f"| a | b |\n|---|---|\n| {markdown(text)} | end |\n")
    assert set(re.findall(r"<(\w+)", page)) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert [part.strip() for part in re.findall(r"<td[^>]*>(.*?)</td>", page, re.S)][1:] == ["end"]
    page = html(f"# A {markdown(text)}")
    assert set(re.findall(r"<(\w+)", page)) == {"h1"}


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip() and "|" not in text])
def test_code_in_markdown_shows_the_characters(text):
    page = html(f"Of {code(text)}, a word.")
    assert set(re.findall(r"<(\w+)", page)) == {"p", "code"}
    assert visible(page) == f"Of {line(text)}, a word."


@pytest.mark.parametrize("text", HOSTILE)
def test_yaml_gives_the_text_back(text):
    header = f"a: {yaml(text)}\nb: 2\n"
    if "\udce9" not in text:  # no character: YAML has none for it
        assert safe_load(header) == {"a": text, "b": 2}
    assert header.count("\n") == 2


@pytest.mark.parametrize("text", HOSTILE)
def test_blocks_of_code_give_the_text_back_on_one_line(text):
    for written in (literal(text), json_text({"x": text})):
        assert "\n" not in written
        assert not CONTROL.search(written)
    assert eval(literal(text)) == text
    assert json.loads(json_text({"x": text})) == {"x": text}
    if "\udce9" not in text and "\u202e" not in text and "\u2028" not in text and "\x9b" not in text:
        shown = subprocess.run(["bash", "-c", f"printf %s {argument(text)}"], capture_output=True, check=True).stdout
        assert shown.decode() == text
    assert len(argument(text).splitlines()) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_reaches_a_terminal_but_characters_and_lines(text):
    assert not CONTROL.search(terminal(text))
    assert not re.search(r"[\n\r\t]", line(text))
    assert len(picture(text)) <= 120


@pytest.mark.parametrize("text", HOSTILE)
def test_tables_and_sentences_on_the_terminal_show_the_text(text, capsys):
    from headwise.cli import console
    from headwise.cli.telling import Terminal

    console.print_table(text, ("x", text), [(text, "1")], text=True)
    console.say(text)
    Terminal().say(text)
    out, err = capsys.readouterr()
    for shown in (out, err):
        assert not CONTROL.search(shown)
    joined = "".join(out.split())
    if len(text) < 50:
        assert joined.count("".join(line(text).split())) >= 4 or not text
    assert "".join(terminal(text).split()) in "".join(err.split())


@pytest.mark.parametrize("text", [text for text in HOSTILE if text])
def test_the_card_of_a_mask_has_one_header_and_no_foreign_markup(text, tmp_path):
    mask = Mask.suppress(Grid((4, 4)), ["L0.H1"], "zero").with_provenance(
        base_model=text, data={"source": text}, found_by=text, **{"a key\n---": text}
    )
    mask.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, header, body = card.split("---\n", 2)
    assert safe_load(header)["library_name"] == "headwise"
    assert set(re.findall(r"<(\w+)", html(body))) <= {"h1", "p", "ul", "li", "code"}
    assert Mask.from_pretrained(tmp_path) == mask


def test_a_file_whose_name_is_markup_is_named(run, tmp_path):
    for name in ("a[/b].csv", "[bold]x[/bold].csv", "a\x1b[31mb.csv", "x\ny.csv", ":smile:.csv"):
        code_, _, err = run("evaluate", "demo", tmp_path / name)
        assert code_ == 1
        assert terminal(str(tmp_path / name)) in err
        assert not CONTROL.search(err)


def test_captions_that_are_markup_are_shown_and_measured(run, tmp_path):
    table = write_pairs(tmp_path, 6)
    with table.open("a", encoding="utf-8") as file:
        for text in ("[/INST]", "[link=x]y[/link]", "\x1b[31mred", ":smile: $x$"):
            file.write(f"images/0.png,{text}\n")
    code_, out, err = run("data", "check", table)
    assert code_ == 0, err
    assert "[/INST]" in out
    assert ":smile:" in out
    assert not CONTROL.search(out)


def test_whole_run_on_hostile_names_in_an_ascii_terminal(tmp_path):
    folder = tmp_path / "a[/b] $x$ <b>|`é"
    table = write_pairs(folder, 30)
    done = subprocess.run(
        [sys.executable, "-m", "headwise", "sweep", "demo", table, "-o", folder / "[out]"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert (folder / "[out]" / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert Path(folder / "[out]" / "sweep.json").is_file()
