"""The pixel cache gives back exactly what the processor gave, whatever happened to the files."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headwise.data import cache as cache_module
from headwise.data import shards
from headwise.data.cache import PixelCache, pixels
from headwise.data.decode import decode
from headwise.data.pairs import Pairs, hash_bytes
from headwise.data.read import read
from headwise.errors import HeadwiseError

from .conftest import encoded, model, preprocess


@pytest.fixture
def pairs() -> Pairs:
    return read([(encoded(i), f"number {i}") for i in range(20)])


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cache_module, shards):
        monkeypatch.setattr(module, "SHARD", 8)


def expected(pairs: Pairs, transform=preprocess) -> torch.Tensor:
    return torch.stack([transform(decode(image.read())) for image in pairs.images])


def inexact(image: Image.Image) -> torch.Tensor:
    x = preprocess(image)
    return x + x.mean()  # no table of bytes gives this back


def test_bytes_are_kept_and_values_are_exact(pairs: Pairs, small_shards: None) -> None:
    found = pixels(pairs, model())
    assert [shard.data.dtype for shard in found.shards] == [np.uint8] * 3
    assert len(found) == 20
    assert torch.equal(found[0:20], expected(pairs))
    assert torch.equal(found[7:9], expected(pairs)[7:9])
    part = found.take([19, 0, 8, 7])
    assert torch.equal(part[1:4], expected(pairs)[[0, 8, 7]])
    assert torch.equal(part.take([3, 0])[0:2], expected(pairs)[[7, 19]])


def test_values_that_no_byte_gives_are_kept_as_float(pairs: Pairs) -> None:
    found = pixels(pairs, model(inexact))
    assert found.shards[0].data.dtype == np.float32
    assert torch.equal(found[0:20], expected(pairs, inexact))


def test_one_inexact_image_late_widens_its_shard_alone(pairs: Pairs, small_shards: None) -> None:
    odd = np.asarray(decode(pairs.images[12].read()))

    def sometimes(image: Image.Image) -> torch.Tensor:
        return inexact(image) if np.array_equal(np.asarray(image), odd) else preprocess(image)

    found = pixels(pairs, model(sometimes))
    assert [str(shard.data.dtype) for shard in found.shards] == ["uint8", "float32", "uint8"]
    assert torch.equal(found[0:20], expected(pairs, sometimes))


def times(factor: float):
    """Another preprocessing."""
    return lambda image: factor * preprocess(image)


def test_a_second_run_decodes_nothing(pairs: Pairs) -> None:
    assert pixels(pairs, model()).decoded == 20

    def watched(image: Image.Image) -> torch.Tensor:
        given.add(image.convert("RGB").tobytes())
        return preprocess(image)

    given: set[bytes] = set()
    seen: list[tuple[int, int]] = []
    again = pixels(pairs, model(watched), progress=lambda done, total: seen.append((done, total)))
    assert again.decoded == 0
    assert given  # the probe pictures, by which the preprocessing is known
    assert not given & {decode(image.read()).tobytes() for image in pairs.images}
    assert seen[-1] == (20, 20)
    assert pixels(pairs, model(size=17)).decoded == 0  # what it says of itself does not count, only what it does
    assert pixels(pairs, model(times(1.5))).decoded == 20  # another preprocessing
    assert pixels(pairs.subset(range(19)), model()).decoded == 19  # other images


def test_progress_counts_every_image_once(pairs: Pairs, small_shards: None) -> None:
    seen: list[tuple[int, int]] = []
    pixels(pairs, model(), progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (20, 20)


@pytest.mark.parametrize("damage", ["flip", "cut", "index", "table", "no index"])
def test_a_corrupt_shard_is_made_again_and_said(pairs: Pairs, cache: Path, small_shards: None, damage: str) -> None:
    pixels(pairs, model())
    folder = next(path for path in (cache / "pixels").iterdir() if (path / shards.DATA).exists())
    data = bytearray((folder / shards.DATA).read_bytes())
    if damage == "flip":
        data[100] ^= 1
    if damage in ("flip", "cut"):
        (folder / shards.DATA).write_bytes(data[:-1] if damage == "cut" else data)
    elif damage == "index":
        (folder / shards.INDEX).write_text("{")
    elif damage == "table":  # one digit of one value
        index = (folder / shards.INDEX).read_text()
        at = index.index("table") + 30
        at += next(i for i, c in enumerate(index[at:]) if c in "12345678")
        (folder / shards.INDEX).write_text(index[:at] + "9" + index[at + 1 :])
    else:
        (folder / shards.INDEX).unlink()
    said: list[str] = []
    found = pixels(pairs, model(), say=said.append)
    assert torch.equal(found[0:20], expected(pairs))
    assert len(said) == 1
    assert "corrupt" in said[0]
    assert 0 < found.decoded <= 8


BUILD = """
import sys, time
from headwise.data import cache, shards
from headwise.data.read import read
cache.SHARD = shards.SHARD = 8
sys.path.insert(0, sys.argv[1])
from data.conftest import encoded, model, preprocess
def slow(image):
    time.sleep(float(sys.argv[2]) if image.size == (24, 20) else 0)  # not for the probe
    return preprocess(image)
pairs = read([(encoded(i), f"number {i}") for i in range(20)])
found = cache.pixels(pairs, model(slow), workers=1)
print(found.decoded, float(found[0:20].double().sum()))
"""


def build(delay: float) -> subprocess.Popen:
    tests = str(Path(__file__).parents[1])
    return subprocess.Popen([sys.executable, "-c", BUILD, tests, str(delay)], stdout=subprocess.PIPE, text=True)


def test_kill_9_loses_one_shard_at_most(pairs: Pairs, cache: Path, small_shards: None) -> None:
    process = build(0.2)
    finished = cache / "pixels"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(finished.glob(f"*/{shards.INDEX}")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    found = pixels(pairs, model())
    assert 0 < found.decoded <= 12
    assert torch.equal(found[0:20], expected(pairs))
    assert not list(finished.glob(".*.part"))


def test_processes_share_one_cache(pairs: Pairs, small_shards: None) -> None:
    runs = [build(0.02) for _ in range(2)]
    outputs = [run.communicate()[0].split() for run in runs]
    assert sum(int(decoded) for decoded, _ in outputs) == 20  # each shard was made by one of them
    assert {float(total) for _, total in outputs} == {float(expected(pairs).double().sum())}


# ---- decoding ahead of the model


def test_the_first_shards_are_read_while_later_ones_are_decoded(pairs: Pairs, small_shards: None) -> None:
    gate, last = threading.Event(), np.asarray(decode(pairs.images[16].read()))

    def held(image: Image.Image) -> torch.Tensor:
        if np.array_equal(np.asarray(image), last):
            assert gate.wait(60)
        return preprocess(image)

    said: list[str] = []
    found = pixels(pairs, model(held), ahead=True, say=said.append)
    try:
        assert torch.equal(found.take([0, 9, 15])[0:3], expected(pairs)[[0, 9, 15]])
        assert found.decoded == 16  # the third shard waits for us
    finally:
        gate.set()
    assert torch.equal(found[0:20], expected(pairs))
    assert found.decoded == 20
    assert said == ["20 images are decoded in the background, ahead of the model."]
    again = pixels(pairs, model(held), ahead=True, say=said.append)
    assert again.decoded == 0
    assert len(said) == 1


def test_a_bad_image_far_ahead_is_raised_by_the_next_read(small_shards: None, monkeypatch: pytest.MonkeyPatch) -> None:
    good = read([(encoded(i), f"number {i}") for i in range(20)])
    broken = replace(good.images[19], fetch=lambda: b"no picture", hash=hash_bytes(b"no picture"))
    pairs = replace(good, images=(*good.images[:19], broken))
    found = pixels(pairs, model(), ahead=True, say=lambda _: None)
    with pytest.raises(HeadwiseError, match="1 images cannot be decoded"):
        found[16:20]
    with pytest.raises(HeadwiseError, match="1 images cannot be decoded"):
        found[0:4]  # it is there, but the run cannot end well
    assert pixels(good.subset(range(16)), model()).decoded == 0  # what was good is kept


def test_a_program_that_ends_early_does_not_wait_for_the_background(cache: Path) -> None:
    code = BUILD.replace(
        "workers=1)\n", "workers=1, ahead=True)\nprint(float(found[0:8].double().sum()))\nsys.exit(3)\n"
    )
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parents[1]), "0.5"], stdout=subprocess.PIPE, text=True
    )
    assert process.communicate()[0]
    assert process.returncode == 3
    decoded = len(list((cache / "pixels").glob(f"*/{shards.INDEX}")))
    assert decoded == 1, f"{decoded} shards after {time.monotonic() - began:.0f} s"


def size_of(cache: Path) -> int:
    return sum(path.stat().st_size for path in (cache / "pixels").rglob("*") if path.is_file())


def test_the_bound_drops_what_was_used_least_recently(pairs: Pairs, cache: Path) -> None:
    def names() -> set[str]:
        return {path.parent.name for path in (cache / "pixels").glob(f"*/{shards.INDEX}")}

    pixels(pairs, model(times(1.1)))
    one = names()
    pixels(pairs, model(times(1.2)))
    bound = int(size_of(cache) * 1.2)
    pixels(pairs, model(times(1.1)))  # used again: the second is the oldest now
    pixels(pairs, model(times(1.3)), cache_size=bound)
    assert size_of(cache) <= bound
    assert one <= names()
    assert len(names()) == 2


def test_shards_that_another_process_removes_meanwhile_are_no_error(tmp_path: Path) -> None:
    def other() -> None:
        for _ in range(150):
            for i in range(20):
                (tmp_path / f"s{i}").mkdir(exist_ok=True)
                (tmp_path / f"s{i}" / shards.INDEX).write_bytes(b"x")
            for i in range(20):
                shards.remove_shard(tmp_path, f"s{i}")

    thread = threading.Thread(target=other)
    thread.start()
    while thread.is_alive():
        shards.trim(tmp_path, 10**12, keep=())
    thread.join()


def test_what_does_not_fit_is_refused_before_the_work(pairs: Pairs) -> None:
    with pytest.raises(HeadwiseError, match="more than the cache size"):
        pixels(pairs, model(), cache_size=1000)


def test_a_full_disk_leaves_nothing_half_written(pairs: Pairs, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    real = shards._write

    def full(path: Path, *rest: object) -> dict:
        real(path, *rest)  # type: ignore
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards, "_write", full)
    with pytest.raises(HeadwiseError, match="the disk is full"):
        pixels(pairs, model())
    assert {path.name for path in (cache / "pixels").iterdir()} == {"locks"}


def test_a_folder_that_cannot_be_written(pairs: Pairs, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HeadwiseError, match="HEADWISE_CACHE"):
        pixels(pairs, model(), cache_dir=tmp_path / "file")


def test_an_image_that_changed_is_said(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
    pairs = read([(str(tmp_path / f"{i}.png"), "x") for i in range(3)])
    (tmp_path / "1.png").write_bytes(encoded(7))
    with pytest.raises(HeadwiseError, match=r"item 1: the image changed"):
        pixels(pairs, model())


def test_a_processor_without_one_size_is_refused(pairs: Pairs) -> None:
    def native(image: Image.Image) -> torch.Tensor:
        return preprocess(image)[:, : image.width // 2, :]

    with pytest.raises(HeadwiseError, match="the processor gives"):
        pixels(pairs, model(native))


def test_it_is_what_the_engine_reads(pairs: Pairs) -> None:
    found: PixelCache = pixels(pairs, model())
    assert found[3:5].dtype == torch.float32
    assert found[18:30].shape == (2, 3, 16, 16)
    assert found[20:20].shape == (0, 3, 16, 16)
