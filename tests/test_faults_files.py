"""Files and folders are whole, whatever happens while they are written: a kill at every file operation, a full disk."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from headwise.errors import HeadwiseError
from headwise.files import new_folder, write_files
from headwise.staging import JOURNAL, clean

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = {"a.txt", "b.bin", "model"}


@pytest.fixture
def quick(tmp_path) -> Iterator[Path]:
    """A folder in memory where there is such a place: thousands of flushes to a disk take minutes."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


SERVER = """
import json, os, sys
from pathlib import Path
from faults import arm
from headwise.errors import HeadwiseError
from headwise.files import new_folder, write_files

def work(folder, text):
    write_files(folder, {"a.txt": text * 5000, "b.bin": lambda path: path.write_bytes(text.encode() * 5000)})
    with new_folder(folder / "model") as made:
        (made / "weights").write_text(text * 5000)
        (made / "inner").mkdir()
        (made / "inner" / "more").write_text(text * 5000)

for line in sys.stdin:
    folder, text, fault = json.loads(line)
    said = Path(folder + ".said")
    said.write_text("")
    child = os.fork()
    if not child:
        code = 1
        try:
            count = arm(Path(folder), **fault)
            work(Path(folder), text)
            said.write_text(str(count()))
            code = 0
        except HeadwiseError as error:
            said.write_text(str(error))
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    reply = json.dumps([code, said.read_text()])
    said.unlink()
    print(reply, flush=True)
"""


@cache
def server() -> subprocess.Popen:
    """A small process whose forks write: a fork of this one, with torch in it, takes many times longer."""
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )


@pytest.fixture(scope="module", autouse=True)
def end_server() -> Iterator[None]:
    yield
    if server.cache_info().currsize:
        server().communicate()


def write(folder: Path, text: str, **fault) -> tuple[int, str]:
    """Two files and a folder, written by another process with a fault: its exit code or signal, and the error."""
    pipe = server()
    assert pipe.stdin is not None
    assert pipe.stdout is not None
    pipe.stdin.write(json.dumps([str(folder), text, {"at": 0, **fault}]) + "\n")
    pipe.stdin.flush()
    return tuple(json.loads(pipe.stdout.readline()))


def operations(folder: Path, **fault) -> int:
    """How many file operations it takes to write, over what is there."""
    code, said = write(folder, "old", **fault)
    assert code == 0, said
    return int(said)


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def whole(folder: Path, text: str) -> dict[str, str]:
    return dict.fromkeys(("a.txt", "b.bin", "model/weights", "model/inner/more"), text * 5000)


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_kill_at_any_file_operation_leaves_old_or_new_and_the_next_run_cleans_up(quick, exchange):
    out = quick / "out"
    assert write(out, "old")[0] == 0
    total = operations(out, exchange=exchange)
    assert total > 20
    seen = set()
    for at in range(1, total + 1):
        assert write(out, "new", at=at, exchange=exchange)[0] == -9, at
        if not exchange:  # between two renames the folder is away; whoever comes next puts it back
            clean(out)
        found = contents(out / "model")
        assert set(found) == {"weights", "inner/more"}, at
        assert len(set(found.values())) == 1, at  # all old or all new
        for name in ("a.txt", "b.bin"):
            assert (out / name).read_text() in ("old" * 5000, "new" * 5000), at
        seen |= {text[:3] for text in found.values()}
        assert write(out, "old")[0] == 0
        assert contents(out) == whole(out, "old"), at  # and nothing else: no journal, no leftover
    assert seen == {"old", "new"}


def test_a_first_write_that_is_killed_at_any_operation_leaves_a_whole_file_or_none(quick):
    for at in range(1, operations(quick / "first") + 1):
        out = quick / f"out-{at}"
        assert write(out, "new", at=at)[0] == -9
        visible = {p.name: p for p in out.iterdir() if not p.name.startswith(".headwise-")} if out.exists() else {}
        assert set(visible) <= NAMES
        assert set(contents(out).values()) <= {"new" * 5000} | {
            text for name, text in contents(out).items() if name.startswith(".headwise-")
        }
        clean(out)
        assert not out.exists() or {p.name for p in out.iterdir()} <= NAMES


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_a_disk_that_is_full_from_any_operation_on_leaves_old_or_new_and_is_said(quick, exchange):
    out = quick / "out"
    assert write(out, "old")[0] == 0
    for at in range(1, operations(out, exchange=exchange) + 1):
        code, said = write(out, "new", at=at, how="full", exchange=exchange)
        if code:
            assert "Cannot write to" in said, at
            assert "the disk is full" in said
        clean(out)
        found = contents(out)
        assert set(found) == set(whole(out, "")), at
        assert found["model/weights"] == found["model/inner/more"]
        assert set(found.values()) <= {"old" * 5000, "new" * 5000}
        assert write(out, "old")[0] == 0


def test_nothing_but_its_own_recorded_names_is_removed(tmp_path):
    """A journal is a file that anybody may have written; and what looks like a stage may be the user's."""
    precious = [tmp_path / ".headwise-mine", tmp_path / "thesis", tmp_path / (".headwise-" + "0" * 32)]
    for path in precious:
        path.mkdir()
        (path / "file").write_text("precious")
    (tmp_path / JOURNAL).write_text("thesis\n../\n/\n.headwise-mine\n.headwise-" + "1" * 32 + "\n")
    write_files(tmp_path, {"a": "b"})
    assert {p.name for p in tmp_path.iterdir()} == {"a", *(p.name for p in precious)}
    assert all((path / "file").read_text() == "precious" for path in precious)


def test_links_are_not_followed(tmp_path):
    out, precious = tmp_path / "out", tmp_path / "precious"
    out.mkdir()
    precious.write_text("precious")
    (out / JOURNAL).symlink_to(precious)
    with pytest.raises(HeadwiseError, match="Cannot write to"):
        write_files(out, {"a": "b"})
    (out / JOURNAL).unlink()
    (out / "a").symlink_to(precious)
    write_files(out, {"a": "b"})  # the link is replaced, not what it shows
    stage = out / (".headwise-" + "2" * 32)
    stage.symlink_to(tmp_path)
    (out / JOURNAL).write_text(stage.name + "\n")
    clean(out)
    assert precious.read_text() == "precious"


def test_temporary_names_are_random_and_of_the_owner_alone(tmp_path):
    def look(path: Path) -> None:
        seen.append(path.parent.parent)
        modes.append(path.parent.parent.stat().st_mode & 0o777)
        recorded.append((tmp_path / JOURNAL).read_text().split())
        path.write_text("x")

    seen, modes, recorded = [], [], []
    for _ in range(3):
        write_files(tmp_path, {"a": look})
    assert len(set(seen)) == 3
    assert modes == [0o700] * 3
    assert recorded == [[path.name] for path in seen]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_what_another_process_is_writing_stays(tmp_path):
    script = (
        "import sys; from headwise.files import new_folder\n"
        f"with new_folder({str(tmp_path / 'slow')!r}) as made:\n"
        "    (made / 'x').write_text('x'); print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        clean(tmp_path)
        write_files(tmp_path, {"a": "b"})
        assert not (tmp_path / "slow").exists()
        other.stdin.close()
    assert other.returncode == 0
    assert {p.name for p in tmp_path.rglob("*")} == {"a", "slow", "x"}


def test_many_threads_write_into_one_folder(tmp_path):
    def work(number: int) -> None:
        for turn in range(10):
            write_files(tmp_path, {f"{number}.json": json.dumps([number, turn] * 100)})
            with new_folder(tmp_path / "shared") as made:
                (made / "one").write_text(str(number))
                (made / "two").write_text(str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {p.name for p in tmp_path.iterdir()} == {"0.json", "1.json", "2.json", "3.json", "shared"}
    assert (tmp_path / "shared" / "one").read_text() == (tmp_path / "shared" / "two").read_text()
    assert json.loads((tmp_path / "3.json").read_text()) == [3, 9] * 100


def test_an_exception_inside_leaves_what_was_there(tmp_path):
    with new_folder(tmp_path / "model") as made:
        (made / "x").write_text("old")

    def fail(error: type[BaseException]) -> None:
        with new_folder(tmp_path / "model") as made:
            (made / "x").write_text("new")
            raise error

    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            fail(error)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {"model", "model/x"}
    assert (tmp_path / "model" / "x").read_text() == "old"


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    (tmp_path / "b.md").mkdir()
    with pytest.raises(HeadwiseError, match=r"a folder is in the place of b\.md.*Move it away"):
        write_files(tmp_path, {"a.json": "1", "b.md": "2"})
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadwiseError, match=r"a file is in the place of file.*Move it away"):
        write_files(tmp_path / "file", {"a.json": "1"})


def test_the_words_of_rust_are_a_full_disk_too(tmp_path):
    with pytest.raises(HeadwiseError, match="the disk is full"):
        write_files(
            tmp_path, {"a": lambda _: (_ for _ in ()).throw(Exception("No space left on device (os error 28)"))}
        )
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_too_long_or_a_character_that_is_none(tmp_path):
    with pytest.raises(HeadwiseError, match=re.escape("File name too long")):
        write_files(tmp_path, {"a": "b", "x" * 300: "c"})
    assert not list(tmp_path.iterdir())
    name = os.fsdecode(b"caf\xe9.png")
    write_files(tmp_path, {"a.json": json.dumps(name, ensure_ascii=False)})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == name
