"""A saved mask loads back equal, a broken file is a clear error, and no half-written file is ever left."""

import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwise.edits.arrays import Array
from headwise.edits.artefact import ARRAYS_FILE, MASK_FILE, dumps
from headwise.edits.card import CARD_FILE
from headwise.edits.edit import KINDS, Edit, Letter
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.files import write_files

GRID = Grid((2, 3, 1), pool=2)
FACTS = {"base_model": "hf:some/clip", "weights_hash": "ab" * 16, "found_by": "ga", "search": {"mean_recall": 0.3}}


def example(**facts) -> Mask:
    return Mask.suppress(GRID, ["L0.H1", "pool.H0"], "zero").with_provenance(**(FACTS | facts))


@st.composite
def masks(draw) -> Mask:
    grid = Grid(tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))), draw(st.integers(0, 3)))
    width, small = draw(st.integers(1, 3)), st.floats(width=32, allow_nan=False, allow_infinity=False)

    def letter(name: str) -> Letter:
        kind = KINDS[name]
        number = None if kind.default is None and not kind.needs else draw(st.floats(0, min(kind.most, 1e6)))
        wanted = kind.arrays if name != "mean" or draw(st.booleans()) else ()
        shapes = [(array, (width,) * len(sides)) for array, sides in wanted]
        count = st.lists(small, min_size=width**2, max_size=width**2)
        return Letter(name, number, tuple((a, Array.of(_shaped(draw(count), shape))) for a, shape in shapes))

    def side(which: str) -> Letter | None:
        return (
            letter(draw(st.sampled_from([n for n, k in KINDS.items() if k.side == which])))
            if draw(st.booleans())
            else None
        )

    table = tuple(tuple(Edit(side("attention"), side("value")) for _ in range(heads)) for heads in grid.rows)
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    )
    facts = draw(st.dictionaries(st.text(), st.one_of(leaf, st.lists(leaf), st.dictionaries(st.text(), leaf))))
    return Mask(grid, table, facts)


def _shaped(values: list[float], shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(values, np.float32)
    return array[: int(np.prod(shape))].reshape(shape)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(masks())
def test_edits_read_back_bit_for_bit(tmp_path, mask):
    mask.save_pretrained(tmp_path)
    back = Mask.from_pretrained(tmp_path)
    assert back == mask
    assert back.provenance == mask.provenance
    assert back.key == mask.key


def test_folder_holds_mask_and_card_and_nothing_else(tmp_path):
    folder = tmp_path / "new" / "mask"
    example().save_pretrained(folder)
    assert sorted(p.name for p in folder.iterdir()) == [CARD_FILE, MASK_FILE]
    assert Mask.from_pretrained(folder) == example() == Mask.from_pretrained(folder / MASK_FILE)
    card = (folder / CARD_FILE).read_text()
    assert "base_model: some/clip" in card
    assert all(word in card for word in ("L0.H1", "pool.H0", "`zero`"))


def test_saving_again_replaces_our_card_but_not_a_users_readme(tmp_path):
    example().save_pretrained(tmp_path)
    Mask.identity(GRID).save_pretrained(tmp_path)
    assert "change nothing" in (tmp_path / CARD_FILE).read_text()
    (tmp_path / CARD_FILE).write_text("my notes")
    example().save_pretrained(tmp_path)
    assert (tmp_path / CARD_FILE).read_text() == "my notes"
    assert Mask.from_pretrained(tmp_path) == example()


def test_a_newer_file_warns_and_loads():
    data = json.loads(dumps(example())) | {"format": 3, "schedule": [1, 2]}
    with pytest.warns(UserWarning, match=r"here .*newer headwise \(format 3.*schedule"):
        mask = Mask.from_json(json.dumps(data), "here")
    assert mask == example()


def test_a_file_of_this_version_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Mask.from_json(dumps(example()), "here")


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"edits": None}, "edits", "null"),
        ({"edits": {"L0.H1": "banish"}}, "edits", "banish"),
        ({"edits": {"L0.H1": 0.5}}, "edits", "texts"),
        ({"edits": {"L0.H1": "scale(NaN)"}}, "edits", "nan"),
        ({"edits": {"L0.H1": "temperature(-1)"}}, "edits", "0 or more"),
        ({"edits": {"L0.H1": "uniform(1.5)"}}, "edits", "from 0 to 1"),
        ({"edits": {"L9.H1": "zero"}}, "edits", r"L9\.H1"),
        ({"edits": {"head one": "zero"}}, "edits", "head one"),
        ({"edits": {"L0.H1": "spectral"}}, "edits", r"L0\.H1\.axes.*head_mask\.safetensors"),
        ({"grid": [2, 3]}, "grid", r"\[2, 3\]"),
        ({"grid": {"layers": [2, 0]}}, "grid", "heads per layer"),
        ({"grid": {"layers": [10**12], "pool": 0}}, "grid", "more than 1,000,000 heads"),
        ({"edits": {"L0.H1": "scale(1e999)"}}, "edits", "finite"),
        ({"edits": {"L0.H1": f"scale({10**400})"}}, "edits", "finite"),
        ({"arrays": {"L0.H1.axes": 3}}, "arrays", "shape"),
        ({"provenance": []}, "provenance", "object"),
        ({"format": "two"}, "format", "two"),
    ],
)
def test_a_wrong_field_is_named(change, field, says):
    data = json.loads(dumps(example())) | change
    with pytest.raises(HeadwiseError, match=says) as caught:
        Mask.from_json(json.dumps(data), "folder/head_mask.json")
    assert str(caught.value).startswith("folder/head_mask.json")
    assert f"'{field}'" in str(caught.value)


@pytest.mark.parametrize("field", ["edits", "grid"])
def test_a_missing_field_is_named(field):
    data = json.loads(dumps(example()))
    del data[field]
    with pytest.raises(HeadwiseError, match=f"'{field}' is missing"):
        Mask.from_json(json.dumps(data), "here")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"edits": [', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[1]", "not an object"),
        (b"\xff\xfe{", "not a text"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, says):
    (tmp_path / MASK_FILE).write_bytes(content)
    with pytest.raises(HeadwiseError, match=says) as caught:
        Mask.from_pretrained(tmp_path)
    assert str(tmp_path / MASK_FILE) in str(caught.value)


def test_a_folder_without_a_mask_and_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(HeadwiseError, match=f"{tmp_path} holds no head_mask.json"):
        Mask.from_pretrained(tmp_path)
    with pytest.raises(HeadwiseError, match="no such folder"):
        Mask.from_pretrained(tmp_path / "nowhere")


def run_python(code: str, **env: str) -> str:
    """What a fresh interpreter prints."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **env}
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_hub_id_reads_the_hubs_cache_and_says_so_when_there_is_none(tmp_path):
    snapshot = tmp_path / "models--some--mask" / "snapshots" / ("0" * 40)
    example().save_pretrained(snapshot)
    refs = tmp_path / "models--some--mask" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    code = """
        from headwise.edits.mask import Mask
        from headwise.errors import HeadwiseError
        print(Mask.from_pretrained("hf:some/mask"), Mask.from_pretrained("some/mask"))
        try:
            Mask.from_pretrained("some/other")
        except HeadwiseError as error:
            print(error)
    """
    out = run_python(code, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(tmp_path))
    assert out.startswith("L0.H1=zero, pool.H0=zero L0.H1=zero, pool.H0=zero")
    assert "no folder some/other" in out


def with_axes() -> Mask:
    arrays = (("axes", Array.of(np.eye(3))), ("scales", Array.of([1, 2, 3])), ("centre", Array.of([0, 1, 0])))
    return example() | Mask.of(GRID, {"L1.H0": Edit(value=Letter("spectral", None, arrays))})


def test_a_former_format_is_refused_with_the_way_out():
    data = {"format": 1, "operator": "zero", "grid": {"layers": [2, 3, 1], "pool": 2}, "gates": [[1, 0], [1, 1, 1]]}
    with pytest.raises(HeadwiseError, match=r"format 1.*L4\.H0=zero"):
        Mask.from_json(json.dumps(data), "here")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "not beside it"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "damaged"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(_flipped(path.read_bytes())), "damaged"),
        (lambda path: _save_other(path, scale=2.0, size=3), "not what was saved"),
        (lambda path: _save_other(path, scale=1.0, size=4), r"shape \[4, 4\] there, \[3, 3\] here"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path, damage, says):
    with_axes().save_pretrained(tmp_path)
    assert Mask.from_pretrained(tmp_path) == with_axes()
    damage(tmp_path / ARRAYS_FILE)
    with pytest.raises(HeadwiseError, match=says) as caught:
        Mask.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def _flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]


def _save_other(path: Path, scale: float, size: int) -> None:
    values = {"axes": scale * np.eye(size), "scales": np.arange(1, size + 1), "centre": np.zeros(size)}
    arrays = tuple((name, Array.of(value)) for name, value in values.items())
    other = Mask.of(GRID, {"L1.H0": Edit(value=Letter("spectral", None, arrays))})
    other.save_pretrained(path.parent / "other")
    path.write_bytes((path.parent / "other" / path.name).read_bytes())


def test_an_older_file_of_arrays_is_not_read_where_none_is_named(tmp_path):
    with_axes().save_pretrained(tmp_path)
    example().save_pretrained(tmp_path)
    assert Mask.from_pretrained(tmp_path) == example()


def test_provenance_that_is_not_json_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(HeadwiseError, match="'when' is not a plain JSON value"):
        example(when={1, 2}).save_pretrained(tmp_path / "mask")
    with pytest.raises(HeadwiseError, match="'score' is not a plain JSON value"):
        example(score=float("nan")).save_pretrained(tmp_path / "mask")
    assert not (tmp_path / "mask").exists()


def test_a_full_disk_leaves_the_old_files_and_no_new_ones(tmp_path):
    """The system refuses bytes past a limit in the middle of a file, as a full disk does."""
    example().save_pretrained(tmp_path / "old", card="old card")
    before = {p.name: p.read_bytes() for p in (tmp_path / "old").iterdir()}
    out = run_python(
        """
        import resource, sys
        from headwise.edits.mask import Mask
        from headwise.errors import HeadwiseError
        mask = Mask.from_pretrained("old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        for folder in ("old", "new/inner"):
            try:
                mask.save_pretrained(folder, card="new card " * 1000)
            except HeadwiseError as error:
                print(error)
        """.replace('"old"', repr(str(tmp_path / "old"))).replace('"new/inner"', repr(str(tmp_path / "new/inner")))
    )
    assert out.count("Cannot write to") == 2
    assert "Free some space" in out
    assert {p.name: p.read_bytes() for p in (tmp_path / "old").iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(HeadwiseError, match=f"Cannot write to {tmp_path / 'file'}"):
        example().save_pretrained(tmp_path / "file")
    with pytest.raises(HeadwiseError, match="Cannot write to"):
        write_files(tmp_path / "file" / "inner", {"a": "b"})


def test_an_interrupt_leaves_nothing(tmp_path):
    class Interrupted(str):
        __slots__ = ()

        def encode(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_files(tmp_path / "out", {"a.txt": "first", "b.txt": Interrupted("second")})
    assert not (tmp_path / "out").exists()
