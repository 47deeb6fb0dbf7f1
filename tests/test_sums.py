"""The list of a shipped folder's files."""

import subprocess

import pytest

from headwise.errors import HeadwiseError
from headwise.sums import SUMS_FILE, check_sums, write_sums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "inner" / "b.bin").write_bytes(bytes(9))
    write_sums(tmp_path)
    return tmp_path


def test_written_and_compared(folder):
    assert list(check_sums(folder)) == ["a.json", "inner/b.bin"]
    done = subprocess.run(["sha256sum", "-c", SUMS_FILE], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_is_not_as_written(folder, tmp_path_factory):
    listed = (folder / SUMS_FILE).read_text()

    def refused(words: str) -> None:
        with pytest.raises(HeadwiseError, match=words):
            check_sums(folder)

    (folder / "a.json").write_text("{ }")
    refused("is not what was written")
    (folder / "a.json").unlink()
    refused("lacks a.json")
    outside = tmp_path_factory.mktemp("outside") / "a.json"
    outside.write_text("{}")
    (folder / "a.json").symlink_to(outside)
    refused("lacks a.json")  # it leads out of the folder
    (folder / "a.json").unlink()
    (folder / "a.json").write_text("{}")
    (folder / "new.txt").write_text("")
    refused("holds new.txt")
    (folder / "new.txt").unlink()
    (folder / SUMS_FILE).write_text(listed.replace("a.json", "../a.json"))
    refused("is not a list that headwise writes")
    (folder / SUMS_FILE).write_bytes(b"\xff\xfe")
    refused("no readable")
