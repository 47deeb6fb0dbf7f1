"""Nothing searched is scored as unseen; reads of a test split are counted; every search has places of its own."""

import io
import json
import shutil

import numpy as np
import pytest
from conftest import write_pairs
from PIL import Image

from headwise.data.read import read
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.evaluate import evaluate
from headwise.jobs.refine import refine
from headwise.jobs.steps.choosing import candidates, of_every_size
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.searching import Searched, Strategy
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import Start
from headwise.jobs.transfer import transfer
from headwise.scoring.objectives import Score
from headwise.search.contract import Found

SMALL = Settings(strategies=("greedy",), max_heads=1, controls=2, finalists=2)
IMAGES = 24


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), IMAGES, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def refined(pairs, tmp_path_factory):
    return refine("demo", pairs, tmp_path_factory.mktemp("refined") / "out", settings=SMALL)


@pytest.fixture(scope="module")
def folder(refined, tmp_path_factory):
    """A mask that is not identity, with what the run remembers."""
    mask = Mask.parse(refined.mask.grid, "L4.H0=uniform").with_provenance(**refined.mask.provenance)
    out = tmp_path_factory.mktemp("mask") / "mask"
    mask.save_pretrained(out)
    return out


def test_a_mask_remembers_its_search_and_pick_images_in_few_bytes(refined, folder):
    stored = json.loads((refined.folder / "head_mask.json").read_text())["provenance"]["seen"]
    assert set(stored) == {"search", "pick"}
    assert len(json.dumps(stored)) < 200 * IMAGES
    assert "hashes" not in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", ["subset", "superset", "renamed", "re-encoded"])
def test_searched_images_are_left_out_of_an_evaluation(pairs, folder, tmp_path, kind):
    given = read(pairs)
    test = [i for i, name in enumerate(given.splits) if name == "test"]
    chosen = {"subset": [*range(8)], "superset": [*range(IMAGES)]}.get(kind, [0, 1, 2, *test])
    rows = []
    for i in chosen:
        data = given.images[i].read()
        if kind == "re-encoded":
            stream = io.BytesIO()
            Image.open(io.BytesIO(data)).convert("RGB").save(stream, "BMP")
            data = stream.getvalue()
        rows.append((data, given.captions[i][0]))
    new = read(rows, name="new data")
    unseen = sum(i in test for i in chosen)
    found = evaluate("demo", new, folder)
    assert found["images"] == unseen
    assert found["searched"] == {"images": len(chosen) - unseen, "left_out": True}
    clean = read([rows[k] for k, i in enumerate(chosen) if i in test], name="clean")
    assert found["metrics"] == evaluate("demo", clean, folder)["metrics"]
    insisted = evaluate("demo", new, folder, allow_searched=True)
    assert (insisted["images"], insisted["searched"]["left_out"]) == (len(chosen), False)


def test_an_evaluation_on_searched_images_alone_is_refused(pairs, folder):
    with pytest.raises(HeadwiseError, match=r"searched or picked on.*allow_searched=True"):
        evaluate("demo", pairs, folder, only_split="search")
    assert evaluate("demo", pairs, folder, only_split="test")["searched"]["images"] == 0
    assert evaluate("demo", pairs, only_split="search")["images"] == IMAGES // 2  # the model as it is has seen nothing


def test_transfer_leaves_searched_images_out_of_other_splits_of_them(pairs, folder, tmp_path):
    given = read(pairs)
    more = read(write_pairs(tmp_path / "more", 2 * IMAGES, start=200))
    rows = [(source.images[i].read(), source.captions[i][0]) for source in (given, more) for i in range(len(source))]
    part = read(rows, name="more of it")
    clean = transfer("demo", [folder], [part], tmp_path / "clean", split_by="image")["data"][0]
    everything = transfer("demo", [folder], [part], tmp_path / "all", split_by="image", allow_searched=True)["data"][0]
    gone = clean["searched"]["test"]
    assert gone > 0
    assert clean["images"]["test"] == everything["images"]["test"] - gone
    assert clean["images"]["pick"] == everything["images"]["pick"] - clean["searched"]["pick"]
    assert everything["searched"] == {**clean["searched"], "left_out": False}
    with pytest.raises(HeadwiseError, match=r"with another split.*allow_searched=True"):
        transfer("demo", [folder], [pairs], tmp_path / "refused", split_by="image", seed=3)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("kept"), IMAGES, splits=("train", "train", "val", "test"), start=300)


@pytest.mark.parametrize("command", ["refine", "front"])
def test_images_of_kept_domains_were_picked_on_too(pairs, kept, tmp_path, command):
    """Refine looks at a kept domain's pick images, front at its search images, too; both are remembered."""
    if command == "refine":
        mask = refine("demo", pairs, tmp_path / "out", keep=[kept], settings=SMALL).mask
    else:
        from headwise.jobs.front import FrontSettings, front

        pytest.importorskip("pymoo")
        settings = FrontSettings(max_loss=100.0, budget=40)
        mask = front("demo", pairs, tmp_path / "out", keep=[kept], settings=settings).mask
    assert mask is not None
    mask = Mask.parse(mask.grid, "L4.H0=uniform").with_provenance(**mask.provenance)
    domain = read(kept)
    gone = {"refine": {"val"}, "front": {"train", "val"}}[command]
    rows = [(domain.images[i].read(), domain.captions[i][0]) for i in range(len(domain))]
    found = evaluate("demo", read(rows, name="the kept domain again"), mask)
    assert found["images"] == sum(name not in gone for name in domain.splits or ())
    assert evaluate("demo", kept, mask, only_split="test")["searched"]["images"] == 0


def test_transfer_takes_the_columns_of_its_sources(pairs, tmp_path):
    table = tmp_path / "p.csv"
    lines = pairs.read_text().splitlines()
    names = {"image": "photo", "caption": "words", "split": "part"}
    header = ",".join(names[name] for name in lines[0].split(","))
    table.write_text("\n".join([header, *lines[1:]]) + "\n")
    given = {"image": "photo", "caption": "words", "split": "part", "images": str(pairs.parent)}
    found = transfer("demo", ["L5.H5=zero"], [table], tmp_path / "named", **given)  # type: ignore
    plain = transfer("demo", ["L5.H5=zero"], [pairs], tmp_path / "plain")
    assert found["data"][0]["hash"] == plain["data"][0]["hash"]
    assert found["masks"][0]["test"] == plain["masks"][0]["test"]
    with pytest.raises(HeadwiseError, match="There is no option 'captoin'"):
        transfer("demo", ["L5.H5=zero"], [table], tmp_path / "wrong", captoin="words")


def test_reads_of_the_same_test_images_are_counted_in_any_folder(pairs, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(pairs.parent, moved)
    counts = [evaluate("demo", moved / pairs.name, "L5.H5=uniform", only_split="test")["test_reads_cache"]]
    counts.append(evaluate("demo", pairs, "L5.H5=uniform", only_split="test")["test_reads_cache"])
    counts.append(evaluate("demo", pairs, "L5.H4=uniform", only_split="test")["test_reads_cache"])
    counts.append(evaluate("demo", pairs, "L5.H5=uniform", only_split="test")["test_reads_cache"])
    first = counts[0]
    # the same mask again tells nothing new and says what it said
    assert counts == [first, first, first + 1, first]
    assert evaluate("demo", pairs, only_split="test")["test_reads_cache"] == 0  # the model as it is chooses nothing


def test_a_damaged_note_of_a_read_is_not_believed(pairs, tmp_path):
    first = evaluate("demo", pairs, "L4.H5=uniform", only_split="test", machine=Machine(cache_dir=tmp_path))[
        "test_reads_cache"
    ]
    (note,) = (tmp_path / "reads").glob("*/*")
    whole = note.read_bytes()
    note.write_bytes(whole.replace(b"[1,", b"[5,"))
    assert note.read_bytes() != whole
    assert (
        evaluate("demo", pairs, "L4.H5=uniform", only_split="test", machine=Machine(cache_dir=tmp_path))[
            "test_reads_cache"
        ]
        == first
    )
    assert note.read_bytes() == whole


def test_power_and_warnings_are_in_the_results(refined):
    power = refined.results["power"]
    assert power["test_expected"] >= power["test_least"] > 0
    assert any("nothing can be claimed here" in warning for warning in refined.results["warnings"])
    assert any("The pick split has 6 images" in warning for warning in refined.results["warnings"])
    report = (refined.folder / "report.md").read_text()
    assert "What these splits could have shown" in report
    assert "No harmful heads" not in report + (refined.folder / "README.md").read_text()


# ---- places


def test_a_nested_chain_cannot_take_all_places():
    grid = Grid((6, 6))

    def found(heads, fitness):
        mask = Mask.suppress(grid, heads)
        return Found(mask, Score(fitness, 0.0, {}, np.zeros(1, np.int64), {}))

    chain = tuple(found([f"L0.H{i}" for i in range(size)], 0.9 + size / 100) for size in range(1, 6))
    genetic = (found(["L1.H0", "L1.H1"], 0.5), found(["L1.H0"], 0.4))
    single = found(["L0.H0"], 0.91)
    start = Start(grid, "zero", single.score, (), (single,), None, None, None, 0.0)
    searched = Searched(start, (Strategy("greedy", chain, 0.0), Strategy("genetic", genetic, 0.0)))
    order = [name for name, _ in candidates([searched], 1, ("zero",))]
    assert set(order[:3]) == {"greedy", "genetic", "best single head"}
    assert candidates([searched], 1, ("zero",))[0][1] is chain[-1]  # best first
    keys = [item.mask.key for _, item in candidates([searched], 1, ("zero",))]
    assert len(set(keys)) == len(keys) == 7  # every mask once: the single head is greedy's first


@pytest.mark.parametrize("edit", ["zero", "uniform", "keys", "scale(1.5)", "temperature(1.5)", "keys+scale(1.5)"])
def test_of_one_size_a_search_has_so_many_places_and_learned_edits_all(edit):
    grid = Grid((6, 6))

    def found(edits):
        return Found(Mask.of(grid, edits), Score(0.5, 0.0, {}, np.zeros(1, np.int64), {}))

    singles = [found({f"L0.H{i}": edit}) for i in range(4)]
    assert [len(of_every_size(singles, each, (edit,))) for each in (1, 2)] == [1, 2]
    learned = [found({str(head): f"scale({1 + alpha / 10})" for head in grid}) for alpha in (1, 2, 3)]
    assert len(of_every_size(learned, 1, (edit,))) == 3
