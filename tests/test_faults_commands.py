"""Every command ends with a sentence and an exit code: 300 lines drawn by chance, streams that are closed or full, a
cache that cannot be used, interrupts."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_pairs
from typer.main import get_command

ROOT = os.geteuid() == 0 if hasattr(os, "geteuid") else False
HUGE = "9" * 400


@pytest.fixture(scope="module")
def things(tmp_path_factory) -> Path:
    """A folder of bad things, and of few good ones."""
    folder = tmp_path_factory.mktemp("things")
    write_pairs(folder / "good", 3)
    (folder / "nested.json").write_text("[" * 100_000)
    (folder / "nested.jsonl").write_text('{"image": ' + "[" * 100_000 + "\n")
    (folder / "digits.jsonl").write_text('{"image": ' + HUGE * 20 + ', "caption": 1e999}\n')
    (folder / "digits.json").write_text('{"format": ' + HUGE * 20 + "}")
    (folder / "empty.csv").write_text("")
    (folder / "latin.csv").write_bytes("image,caption\ncafé.png,café\n".encode("latin-1"))
    (folder / "nul.csv").write_bytes(b"image,caption\n\0,\0\n")
    (folder / "random.parquet").write_bytes(random.Random(0).randbytes(999))
    (folder / os.fsdecode(b"caf\xe9.csv")).write_text("image,caption\nx.png,y\n")
    for number, name in enumerate(("dog", "cat", "dog")):
        place = folder / os.fsdecode(b"pictures\xe9") / name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "good" / "images" / f"{number}.png", place / os.fsdecode(b"caf%d\xe9.png" % number))
    (folder / "mask").mkdir()
    for name, text in {
        "nested": "[" * 100_000,
        "digits": '{"grid": {"layers": [' + HUGE + "]}}",
        "list": "[]",
        "null": "null",
    }.items():
        (folder / "mask" / name).mkdir()
        (folder / "mask" / name / "head_mask.json").write_text(text)
    for name, config in {
        "nested": "[" * 100_000,
        "list": "[]",
        "huge": json.dumps({"model_type": "clip", "projection_dim": 10**30}),
    }.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(config)
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe.csv")
    return folder


def values(folder: Path) -> list[str]:
    """What an argument or an option may get."""
    files = [str(path) for path in sorted(folder.iterdir())]
    masks = [str(path) for path in sorted((folder / "mask").iterdir())]
    forms = [f"{form}:{folder / name}" for form in ("karpathy", "coco", "cna", "wds", "cola", "mix", "chinese-clip")
             for name in ("nested.json", "digits.json", "good", "loop")]  # fmt: skip
    texts = ["", " ", "demo", "hf:", "hf:no/such", "hf:../x", "timm:", "open_clip:x", "~nouser/x", "x" * 300, "/" + "y/" * 3000, "a[/b]", "[/INST]",
             "\x1b[31m", "日本語", os.fsdecode(b"\xff"), "nan", "inf", "-inf", "-1", "0", "1e400", HUGE, f"{HUGE}GB", "0x1", "1,2", "L0.H0=zero",
             f"L{HUGE}.H0=zero", "L0.H1=zero=", "L0.H0=scale(nan)", "L0.H0=spectral", "identity", "cpu", "cuda:99", "auto", "float32", "genetic", "/dev/null", "/proc/self/mem", ".", "..",
             "/", "{c}", "a?b=c&d", "wds:x?split=", "s3://x/y", "https://[::1", "http://", "file:///etc/passwd", "x://y", "--", "-h", "-"]  # fmt: skip
    return files + masks + forms + texts


def test_lines_by_chance_end_with_a_sentence(things, run, monkeypatch, tmp_path):
    """What would be a long run is not asked for: a good model never meets good pairs."""
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    draw, commands, seen = random.Random(13), parameters(), set()
    bad = [value for value in values(things) if value not in ("demo", str(things / "good"))]
    for number in range(360):  # some 15 a command
        name = draw.choice([*commands, "nonsense"])
        arguments, options = commands.get(name, ([], {}))
        asked = [] if draw.random() < 0.05 else [
            "demo" if argument == "model" and draw.random() < 0.3 else draw.choice(bad) for argument in arguments
        ]  # fmt: skip
        for option, flag in draw.sample(sorted(options.items()), min(len(options), draw.choice([0, 0, 1, 2]))):
            asked += [option] if flag else [option, draw.choice(bad)]
        for option in {"transfer": ("--mask", "--on"), "take": ("--mask",), "verify": ("--edits",)}.get(name, ()):
            asked += [option, draw.choice(bad)]  # these have to be there
        if "--out" in options and "--out" not in asked and draw.random() < 0.8:
            asked += ["-o", str(tmp_path / "out") if draw.random() < 0.5 else draw.choice(bad)]
        code, out, err = run(*name.split(), *asked)
        said = f"line {number}: {name} {asked!r}\n{err[-2000:]}"
        assert code in (0, 1, 2), said
        assert "Traceback" not in err + out, said
        assert "Unexpected" not in err, said
        assert code == 0 or err.strip() or "bad rows" in out, said
        assert not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f]", out + err), said
        seen.add((name, code))
    assert {code for _, code in seen} == {0, 1, 2}
    assert {name for name, code in seen if code == 1} >= set(commands) - {"models"}  # each got past its parser


@pytest.mark.parametrize("line", [
    "explain demo {good} -o {out} --texts {pipe}",
    "explain demo {good} -o {out} --texts /dev/zero",
    "refine demo {good} -o {out} --distractors {pipe}",
    "refine demo {good} -o {out} --config {pipe}",
    "refine demo {good} -o {out} --log-file {pipe}",
    "refine demo {pipe} -o {out}",
    "evaluate demo {good} --mask {folder}",
    "verify {folder} --edits L0.H0=zero",
    "report {folder}",
    "inspect {folder}",
    "batch {pipe} -o {out}",
    "evaluate demo {good} --class-names {pipe}",
    "evaluate demo {good} --templates {pipe}",
])  # fmt: skip
def test_pipes_and_devices_are_refused_at_once(things, run, tmp_path, line):
    """Nobody writes into the pipe, and nobody reads what is written into it: whoever opened it would wait forever."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("head_mask.json", "results.json", "config.json", "compare.json", "SHA256SUMS"):
        os.mkfifo(folder / name)

    def waited(number, frame):
        raise AssertionError("still waiting after a minute")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(60)
    try:
        words = line.format(
            good=things / "good" / "pairs.csv", pipe=things / "pipe.csv", folder=folder, out=tmp_path / "out"
        )
        code, _, err = run(*words.split())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert code == 1, err
    assert "Traceback" not in err
    assert err.strip()


def parameters() -> dict[str, tuple[list[str], dict[str, bool]]]:
    """Every command's arguments, and its options with whether each is a flag, as the parser knows them."""
    from headwise.cli.app import app

    found = {}

    def visit(command, name: str) -> None:
        if inner := getattr(command, "commands", None):
            for word, one in inner.items():
                visit(one, f"{name} {word}".strip())
            return
        arguments = [p.name for p in command.params if p.param_type_name == "argument"]
        options = {
            p.opts[0]: bool(getattr(p, "is_flag", False)) for p in command.params if p.param_type_name == "option"
        }
        found[name] = arguments, options

    visit(get_command(app), "")
    del found["demo"]  # minutes
    return found


# ---- streams


def shell(line: str, **environment: str) -> subprocess.CompletedProcess:
    command = line.replace("headwise", f"'{sys.executable}' -m headwise")
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **environment})


def test_closed_and_full_streams():
    closed = shell("headwise models >&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    full = shell("headwise models >/dev/full")
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    assert "Exception ignored" not in full.stderr
    gone = shell("set -o pipefail; headwise models | true")
    assert gone.stderr == ""
    mute = shell("headwise evaluate demo nothing.csv 2>&-")
    assert (mute.returncode, mute.stdout) == (1, "")
    stuck = shell("headwise evaluate demo nothing.csv 2>/dev/full >/dev/full")
    assert stuck.returncode == 1


def test_progress_that_cannot_be_shown_costs_no_result(things, tmp_path):
    table, cache = things / "good" / "pairs.csv", str(tmp_path / "cache")
    shown = shell(f"headwise evaluate demo '{table}' --json", HEADWISE_CACHE=cache)
    full = shell(f"headwise evaluate demo '{table}' --json 2>/dev/full", HEADWISE_CACHE=cache)
    assert shown.returncode == full.returncode == 0, full.stdout
    assert json.loads(full.stdout) == json.loads(shown.stdout)


def test_json_is_json_in_any_encoding(run, monkeypatch, things):
    source = things / os.fsdecode(b"pictures\xe9")
    for encoding in ("ascii", "latin-1", "utf-8"):
        done = subprocess.run(
            [sys.executable, "-m", "headwise", "data", "check", source, "--json"],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert done.returncode == 0, done.stderr
        assert ["dog/caf0\\xe9.png", ["dog"]] in json.loads(done.stdout)["samples"], encoding


# ---- homes and caches


def test_caches_that_cannot_be_used(run, monkeypatch, things, tmp_path):
    table = things / "good" / "pairs.csv"
    (tmp_path / "file").write_text("x")
    (tmp_path / "halves").mkdir()
    for name in ("pixels", "texts", "checked"):
        (tmp_path / "halves" / name).write_text("x")
    for cache in (
        tmp_path / "file",
        tmp_path / "halves",
        tmp_path / ("x" * 300),
        Path("/proc/nothing"),
        Path("/dev/null/x"),
    ):
        monkeypatch.setenv("HEADWISE_CACHE", str(cache))
        code, _, err = run("evaluate", "demo", table)
        assert code == 1, cache
        assert "HEADWISE_CACHE" in err, err
        assert "Unexpected" not in err
    monkeypatch.setenv("HEADWISE_CACHE", "~nouser/cache")
    code, _, err = run("evaluate", "demo", table)
    assert code == 1
    assert "~nouser/cache" in err
    assert "HEADWISE_CACHE" in err


def test_an_unknown_user_without_a_home(things):
    """A process of a user that no file knows, as in many containers."""
    if not ROOT:
        pytest.skip("only root may become somebody else")
    script = (
        "import os, pwd\n"
        "from headwise.data.files import cache_folder\n"
        "from headwise.errors import HeadwiseError\n"
        "os.environ.pop('HOME', None); os.environ.pop('HEADWISE_CACHE', None); os.setuid(54321)\n"
        "try: cache_folder()\n"
        "except HeadwiseError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "Set HEADWISE_CACHE" in done.stdout, done.stderr


# ---- interrupts


def _as_on_a_terminal() -> None:
    """A shell starts what runs in its background, these tests too, with interrupts ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_that_the_same_command_continues(number, code, tmp_path):
    table = write_pairs(tmp_path / "pairs", 150)  # many enough that a busy machine interrupts before the end
    out = tmp_path / "out"
    command = [sys.executable, "-m", "headwise", "sweep", "demo", table, "-o", out]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_as_on_a_terminal
    )
    while not (out / "sweep.sqlite").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err.rstrip().endswith("headwise: interrupted; the same command continues where it stopped."), err
    assert "Traceback" not in err
    assert not [path for path in out.rglob("*") if path.name.startswith(".headwise-")]
    assert subprocess.run(command, capture_output=True).returncode == 0


def test_an_error_that_nobody_thought_of_is_written_down(run, monkeypatch, tmp_path):
    """The one test that makes headwise fail by force: a table of pairs becomes an object that cannot be read."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setitem(sys.modules, "headwise.jobs.evaluate", object())
    code, _, err = run("evaluate", "demo", "x.csv")
    assert code == 1
    assert "ImportError" in err
    (log,) = tmp_path.iterdir()
    assert str(log) in err
    assert "Traceback" in log.read_text()


# ---- a damaged study, moved away as the message says


def test_after_a_study_is_moved_away_the_same_command_works(run, tmp_path):
    table = write_pairs(tmp_path / "pairs", 24)
    line = [
        "refine",
        "demo",
        table,
        "-o",
        tmp_path / "out",
        "--strategy",
        "greedy",
        "--width",
        "2",
        "--controls",
        "2",
        "--no-sweep",
        "--max-heads",
        "2",
    ]
    subprocess.run([sys.executable, "-m", "headwise", *line], check=True, capture_output=True)  # it closes its study
    study = tmp_path / "out" / "study.sqlite"
    study.write_bytes(b"damaged" * 1000)
    code, _, err = run(*line)
    assert code == 1
    assert "Move it away" in err
    study.rename(tmp_path / "out" / "study.sqlite.damaged")
    code, _, err = run(*line)
    assert code == 0, err
    study.rename(tmp_path / "elsewhere")
    assert run(*line)[0] == 0
    study.unlink()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    code, _, err = run(*line)
    assert code == 1
    assert "thesis.txt" in err
