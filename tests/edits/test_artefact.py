"""A saved mask loads back equal, a broken file is a clear error, and no half-written file is ever left."""

import json
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.edits.artefact import CARD_FILE, MASK_FILE, dumps
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.edits.operators import OPERATORS
from headwise.errors import HeadwiseError
from headwise.files import write_files

GRID = Grid((2, 3, 1), pool=2)
FACTS = {"base_model": "hf:some/clip", "weights_hash": "ab" * 16, "found_by": "ga", "search": {"mean_recall": 0.3}}


def example(**facts) -> Mask:
    return Mask.suppress(GRID, ["L0.H1", "pool.H0"], "zero").with_provenance(**(FACTS | facts))


@st.composite
def masks(draw) -> Mask:
    grid = Grid(tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))), draw(st.integers(0, 3)))
    gate = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
    gates = tuple(tuple(draw(gate) for _ in range(heads)) for heads in grid.rows)
    operator = draw(st.sampled_from([*OPERATORS, "scale"]))
    mask = Mask(grid, gates, operator)
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    means = ()
    if operator == "mean":
        means = tuple((head, (draw(number), draw(number), draw(number))) for head in mask.heads)
    leaf = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    )
    facts = draw(st.dictionaries(st.text(), st.one_of(leaf, st.lists(leaf), st.dictionaries(st.text(), leaf))))
    return Mask(grid, gates, operator, means, facts)


@settings(max_examples=150, deadline=None)
@given(masks())
def test_a_mask_reads_back_bit_for_bit(mask):
    back = Mask.from_json(dumps(mask), "here")
    assert back == mask
    assert [[g.hex() for g in row] for row in back.gates] == [[g.hex() for g in row] for row in mask.gates]
    assert back.means == mask.means
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
    assert "changes nothing" in (tmp_path / CARD_FILE).read_text()
    (tmp_path / CARD_FILE).write_text("my notes")
    example().save_pretrained(tmp_path)
    assert (tmp_path / CARD_FILE).read_text() == "my notes"
    assert Mask.from_pretrained(tmp_path) == example()


def test_a_newer_file_warns_and_loads():
    data = json.loads(dumps(example())) | {"format": 2, "schedule": [1, 2]}
    with pytest.warns(UserWarning, match=r"here .*newer headwise \(format 2.*schedule"):
        mask = Mask.from_json(json.dumps(data), "here")
    assert mask == example()


def test_a_file_of_this_version_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Mask.from_json(dumps(example()), "here")


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"operator": None}, "operator", "null"),
        ({"operator": "banish"}, "operator", "banish"),
        ({"grid": [2, 3]}, "grid", r"\[2, 3\]"),
        ({"grid": {"layers": [2, 0]}}, "grid", "heads per layer"),
        ({"grid": {"layers": [10**12], "pool": 0}}, "gates", "shape"),
        ({"gates": [[1, 0.0], [1, 1, 1], [True], [1, 1]]}, "gates", "numbers"),
        ({"gates": [[1, float("nan")], [1, 1, 1], [1], [1, 1]]}, "gates", "numbers"),
        ({"gates": [[1, 10**400], [1, 1, 1], [1], [1, 1]]}, "gates", "numbers"),
        ({"gates": [[1, 1.5], [1, 1, 1], [1], [1, 1]]}, "gates", r"L0\.H1 is 1\.5"),
        ({"gates": [[1, -0.1], [1, 1, 1], [1], [1, 1]]}, "gates", r"L0\.H1 is -0\.1"),
        ({"gates": [[1, 1], [1, 1]]}, "gates", "shape"),
        ({"gates": "all"}, "gates", "all"),
        ({"means": {"L0.H1": "x"}}, "means", "numbers"),
        ({"means": {"L9.H1": [0.5]}}, "means", r"L9\.H1"),
        ({"means": {"head one": [0.5]}}, "means", "head one"),
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


@pytest.mark.parametrize("field", ["operator", "grid", "gates"])
def test_a_missing_field_is_named(field):
    data = json.loads(dumps(example()))
    del data[field]
    with pytest.raises(HeadwiseError, match=f"'{field}' is missing"):
        Mask.from_json(json.dumps(data), "here")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"gates": [', "not valid JSON"),
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
    assert out.startswith("zero:L0.H1,pool.H0 zero:L0.H1,pool.H0")
    assert "no folder some/other" in out


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
