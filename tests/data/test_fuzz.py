"""Damaged files of every format give pairs or a documented error (`benchmarks/fuzz_readers.py` does this at length)."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATH = Path(__file__).parents[2] / "benchmarks" / "fuzz_readers.py"
spec = importlib.util.spec_from_file_location("fuzz_readers", PATH)
assert spec is not None
assert spec.loader is not None
fuzz = importlib.util.module_from_spec(spec)
sys.modules["fuzz_readers"] = fuzz
spec.loader.exec_module(fuzz)

NAMES = sorted(fuzz.targets())
SLOW_MACHINE = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def bench(tmp_path: Path):
    return fuzz.Bench(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_sound_files_are_read(bench, name: str) -> None:
    assert bench.read(name, bench.targets[name].sound) == "pairs"


def test_sound_pictures_and_shards_are_read(bench) -> None:
    assert [bench.image(data) for data in fuzz.pictures().values()] == ["pairs"] * len(fuzz.pictures())
    assert bench.shard(fuzz.SHARD) == "pairs"


@settings(SLOW_MACHINE, max_examples=40)
@given(data=st.binary(max_size=300), name=st.sampled_from([name for name in NAMES if name != "parquet"]))
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    assert fuzz.Bench(tmp_path_factory.mktemp("fuzz")).read(name, data) in ("pairs", "error")


@pytest.mark.slow
@settings(SLOW_MACHINE, max_examples=3000)
@given(seed=st.integers(0, 2**40))
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    bench = fuzz.Bench(tmp_path_factory.mktemp("fuzz"))
    _, run, data = fuzz.draw_input(bench, seed)
    assert run(data) in ("pairs", "error")
