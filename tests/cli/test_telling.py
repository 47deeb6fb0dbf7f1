"""What a command says while it works: bars on a terminal, lines of one piece elsewhere, all of it in a log file."""

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from headwise.cli import telling

from .common import refused


def test_off_a_terminal_a_long_stage_says_share_and_time_left(monkeypatch, capsys):
    monkeypatch.setattr(telling, "EVERY", 0.05)
    with telling.Terminal().stage("Sweep", 1234.5, "FFE") as advance:
        advance(123.45)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"Sweep: 10%, 123\.5 of 1,234\.5 FFE, about \d+ s left", lines[0]), lines
    assert len(lines) >= 3
    assert re.fullmatch(r"Sweep: 123\.5 FFE in \d+ s", lines[-1])


def test_a_stage_of_unknown_size_says_what_it_has_done(monkeypatch, capsys):
    monkeypatch.setattr(telling, "EVERY", 0.05)
    with telling.Terminal().stage("Decoding", None, "images") as advance:
        advance(7)
        time.sleep(0.12)
    assert capsys.readouterr().err.splitlines()[0].startswith("Decoding: 7 images, 0 s so far")


def test_nothing_is_wrapped_in_a_narrow_log(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    with telling.Terminal().stage("A stage with a long title of many words", 10_000_000, "images") as advance:
        advance(10_000_000)
    (only,) = capsys.readouterr().err.splitlines()
    assert only.endswith("10,000,000 images in 0 s")


@pytest.mark.parametrize("columns", [60, 80])
def test_a_bar_fits_its_terminal(columns):
    code = (
        "from headwise.cli.telling import Terminal\n"
        "with Terminal().stage('Finalists on the pick split, long', 12345.5, 'FFE') as advance:\n"
        "    for _ in range(5): advance(2000.0); __import__('time').sleep(0.1)\n"
    )
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=theirs, env=env) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # the other side is closed
            pass
        assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    drawn = [piece for piece in re.split(r"[\r\n]+", text) if "Finalists" in piece]
    assert drawn
    assert all(len(piece) <= columns for piece in drawn), drawn
    assert any("FFE" in piece for piece in drawn)
    assert columns < 80 or "…" not in drawn[-1].replace("Finalists on the pick spli…", "").replace(
        "Finalists on the pick sp…", ""
    )


def test_quiet_says_nothing_and_verbose_what_is_used(pairs, run):
    code, out, err = run("evaluate", "demo", pairs, "-q")
    assert (code, err) == (0, "")
    assert "mean recall" in out
    code, _, err = run("evaluate", "demo", pairs, "--verbose")
    assert code == 0
    assert "headwise evaluate, version" in err
    assert "Evaluating begins" in err
    refused(run("evaluate", "demo", pairs, "-q", "-v"), "--quiet and --verbose")


def test_the_log_file_has_all_of_it_with_the_time(pairs, run, tmp_path):
    log = tmp_path / "run.log"
    code, _, err = run("evaluate", "demo", pairs, "--json", "--log-file", log)
    assert (code, err) == (0, "")
    code, _, err = run("evaluate", "demo", tmp_path / "gone.csv", "--log-file", log)
    assert code == 1
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)
    text = "\n".join(lines)
    assert "headwise evaluate, version" in text
    assert "Evaluating: 1.0 FFE in" in text
    assert "gone.csv" in lines[-1]
    refused(run("evaluate", "demo", pairs, "--log-file", tmp_path), "log file", "Give another place")
