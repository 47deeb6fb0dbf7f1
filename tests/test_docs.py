"""Commands in the documents parse, and links in them lead somewhere."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

from headwise.cli.app import app

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "examples", "examples/*", "recipes/*")
PAGES = sorted(page for folder in (".", *FOLDERS) for page in ROOT.glob(f"{folder}/*.md"))
PLACEHOLDERS = ("…", "...")


def commands(page: Path) -> list[str]:
    """The lines of code blocks that begin with `headwise`, without comments; lines with an ellipsis are no commands."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line for block in re.findall(r"```(?:sh|console)?\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    lines += [line for line in text.splitlines() if line.startswith("    ")]
    found = [line.strip().removeprefix("$ ") for line in lines]
    return [line for line in found if line.startswith("headwise ") and not any(mark in line for mark in PLACEHOLDERS)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page: Path):
    group = typer.main.get_command(app)
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        command = group
        if words[0].startswith("--"):  # of headwise itself
            assert words[0] in {flag for option in group.params for flag in option.opts} | {"--help"}, line
            continue
        with group.make_context("headwise", words, resilient_parsing=True) as context:
            while hasattr(command, "commands"):
                name, command, words = command.resolve_command(context, words)
            if "--config" in words:  # the file is not there, and what it gives may be missing here
                known = {flag for option in command.params for flag in option.opts}
                assert {word for word in words if word.startswith("-")} <= known, line
                continue
            with command.make_context(name, words, parent=context):  # raises what the user would be told
                pass


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name} links to {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_command_has_its_page():
    group = typer.main.get_command(app)
    shared = {"demo": "refine", "inspect": "models"}  # a few lines each: on the page of what they belong to
    for name in group.commands:
        page = ROOT / "docs" / f"{shared.get(name, name)}.md"
        assert page.is_file(), f"headwise {name} has no page"
        assert f"headwise {name}" in page.read_text(encoding="utf-8"), f"{page.name} does not show headwise {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_are_there(page: Path):
    """Tests, benchmarks, recipes and tools that a page names by their path."""
    found = re.findall(
        r"\b((?:tests|benchmarks|recipes|tools|headwise)/[\w/]+\.(?:py|sh))\b", page.read_text(encoding="utf-8")
    )
    assert not [name for name in found if not (ROOT / name).exists()]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_named_modules_are_there(page: Path):
    """`headwise.x.y` in a page is a module, or something in one."""
    for name in set(re.findall(r"\bheadwise((?:\.[A-Za-z_]+)+)\b(?!/)", page.read_text(encoding="utf-8"))):
        parts = ["headwise", *name.split(".")[1:]]
        for length in range(len(parts), 0, -1):
            try:
                thing = importlib.import_module(".".join(parts[:length]))
                break
            except ModuleNotFoundError:
                continue
        for part in parts[length:]:
            assert hasattr(thing, part), f"{page.name} names headwise{name}"
            thing = getattr(thing, part)


def test_named_options_are_there():
    """Options that pages name, in code, are options of some command, or of a script beside the page; other programs are not meant."""
    group = typer.main.get_command(app)
    known = {"--help", "--version"}
    for command in [*group.commands.values(), *group.commands["data"].commands.values()]:
        known |= {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    elsewhere = {"CHANGELOG.md", "defaults.md", "performance.md"}  # about former options, about options of benchmarks
    for page in [page for page in PAGES if page.name not in elsewhere]:
        code = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        own = [text for text in code if text.startswith(("--", "headwise ", "refine ", "evaluate "))]
        named = {name for text in own for name in re.findall(r"--[a-z][a-z-]*", text)}
        beside = "".join(script.read_text(encoding="utf-8") for script in page.parent.glob("*.py"))
        unknown = named - known - set(re.findall(r'"(--[a-z][a-z-]*)"', beside))
        assert not unknown, f"{page.relative_to(ROOT)} names {sorted(unknown)}"


def test_every_promise_of_the_security_page_names_tests_that_are_there():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| **")]
    assert len(rows) >= 9
    for row in rows:
        named = re.findall(r"`((?:tests|benchmarks)/[^`]+)`", row.rpartition(" | ")[2])
        assert any(name.startswith("tests/") for name in named), row
        for name in named:
            file, _, function = name.partition("::")
            assert (ROOT / file).is_file(), name
            assert f"def {function or 'test_'}" in (ROOT / file).read_text(encoding="utf-8") or "benchmarks/" in file, (
                name
            )
