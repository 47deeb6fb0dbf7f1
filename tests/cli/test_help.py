"""--help: every option has its panel, the ones that are given most come first; completion answers; every command has
the options that all of them share."""

import os
import re
import subprocess
import sys

import pytest
import typer

from headwise.cli.app import app
from headwise.cli.command import LONG
from headwise.cli.panels import FIRST, PANELS, PLACES

GROUP = typer.main.get_command(app)
COMMANDS = {**GROUP.commands, "data check": GROUP.commands["data"].commands["check"]}
del COMMANDS["data"]


def options(command) -> list:
    return [p for p in command.params if p.param_type_name == "option" and p.name != "help"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_in_its_panel_and_in_order(name):
    found = options(COMMANDS[name])
    assert not [p.name for p in found if p.name not in PLACES]
    numbers = [list(PLACES).index(p.name) for p in found]
    assert numbers == sorted(numbers)
    assert sum(PLACES[p.name][0] == FIRST for p in found) <= 10


@pytest.mark.parametrize("name", COMMANDS)
def test_what_all_commands_share(name):
    flags = {flag for p in options(COMMANDS[name]) for flag in p.opts}
    assert {"-q", "-v", "--log-file"} <= flags
    assert ("--config" in flags) == (name in LONG)
    takes_a_model = any(p.name == "model" for p in COMMANDS[name].params) or name in (
        "demo",
        "explore",
        "take",
        "verify",
    )
    assert ("--device" in flags) == takes_a_model


def test_no_panel_names_an_option_that_no_command_has():
    known = {p.name for command in COMMANDS.values() for p in options(command)}
    assert not set(PLACES) - known


def test_evaluate_and_transfer_take_the_same_columns():
    columns = [
        {p.name for p in options(COMMANDS[name])} & set(PANELS["Data"]) - {"most_images"}
        for name in ("evaluate", "transfer", "refine")
    ]
    assert columns[0] == columns[1] == columns[2]
    assert "split_column" in columns[0]


def test_help_shows_the_panels(run):
    code, out, _ = run("refine", "--help")
    assert code == 0
    titles = re.findall(r"─ ([A-Z][a-z ]+) ─", out)
    assert titles == ["Arguments", *PANELS]


@pytest.mark.parametrize(("typed", "expected"), [("ref", "refine"), ("refine demo demo --strat", "--strategy")])
def test_completion_answers(typed, expected):
    words = f"headwise {typed}"
    asked = {"_HEADWISE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    code = "import sys; sys.argv = ['headwise']; from headwise.cli.guard import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True)
    assert expected in done.stdout.split(), done
