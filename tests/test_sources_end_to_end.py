"""Cola, mixtures, texts of several images and the bound of the cache, through the command line."""

import base64
import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from exploring import last, opened

from headwise.demo import pairs_file

SMALL = ["--budget", "12", "--population", "10", "--controls", "2", "--finalists", "2", "--json"]
IMAGES = 36


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """`headwise ...` with a cache of its own: (exit code, JSON or text, standard error)."""
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))

    def call(*args: object):
        code, out, err = run(*args)
        return code, json.loads(out) if "--json" in args and code == 0 else out, err

    return call


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return parquet.read_table(pairs_file()).slice(0, 4 * IMAGES).to_pylist()


@pytest.fixture(scope="module")
def folder(rows, tmp_path_factory) -> Path:
    """Pictures 0.png … of the packaged pairs."""
    place = tmp_path_factory.mktemp("pictures")
    for i, row in enumerate(rows):
        (place / f"{i}.png").write_bytes(row["image"]["bytes"])
    return place


def write_csv(path: Path, header: list[str], lines: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return path


@pytest.fixture(scope="module")
def mixture(folder, rows) -> Path:
    write_csv(folder / "pairs.csv", ["image", "text"], [[f"{i}.png", rows[i]["captions"][0]] for i in range(IMAGES)])
    labels = [[f"{i}.png", ("circle", "arrow", "house")[i % 3]] for i in range(IMAGES, 2 * IMAGES)]
    write_csv(folder / "birds.csv", ["image", "label"], labels)
    parts = [
        {"source": "{here}/pairs.csv", "weight": 3},
        {"source": "{here}/birds.csv", "templates": "plain", "fitness": "mean_per_class_recall"},
    ]
    (folder / "mix.json").write_text(json.dumps({"parts": parts}))
    return folder / "mix.json"


def test_refine_maximises_a_weighted_sum_over_two_sources(mixture, run, tmp_path):
    code, found, err = run("refine", "demo", f"mix:{mixture}", "-o", tmp_path / "out", *SMALL)
    assert code == 0, err
    first, second = found["data"]["parts"]
    assert (first["name"], first["task"], first["weight"]) == ("pairs", "retrieval", 3)
    assert (second["task"], second["fitness"]) == ("classification", "mean_per_class_recall")
    for name, whole in found["data"]["splits"].items():
        assert whole["images"] == first["splits"][name]["images"] + second["splits"][name]["images"]
        assert first["splits"][name]["images"] >= 2
    for row in found["test"]:
        metrics = row["metrics"]
        expected = 0.75 * metrics["pairs/mean_recall"] + 0.25 * metrics["birds/mean_per_class_recall"]
        assert metrics["fitness"] == pytest.approx(expected)
    assert found["settings"]["objective"]["parts"]["birds"]["weight"] == 0.25
    assert found["data"]["split_how"].startswith("pairs: by image")
    assert (tmp_path / "out" / "report.md").exists()
    code, out, err = run("refine", "demo", f"mix:{mixture}", "-o", tmp_path / "out", *SMALL[:-1])
    assert code == 0, err
    assert "fitness" in out
    assert "split pairs: by image" in err
    assert found["data"]["split_hash"] in err


def test_what_was_chosen_of_a_mixture_is_learned_again(mixture, run, tmp_path):
    out = tmp_path / "out"
    learned = ("--rungs", "scale", "--level", "0.99", "--budget", "90", "--controls", "1", "--json")
    code, found, err = run("refine", "demo", f"mix:{mixture}", "-o", out, *learned)
    assert code == 0, err
    parts = found["data"]["splits"]
    assert found["refit"]["images"] == parts["search"]["images"] + parts["pick"]["images"]
    code, told, err = run("evaluate", "demo", f"mix:{mixture}", "--mask", out, "--json")  # on what was not seen
    assert code == 0, err
    tested = next(row for row in found["test"] if row["what"] == "chosen")["metrics"]
    assert told["metrics"]["fitness"] == pytest.approx(tested["fitness"], abs=1e-6)
    code, told, err = run("take", out, "--mask", "scale", "-o", tmp_path / "taken", "--json")
    assert code == 0, err
    assert told["test"][0]["metrics"]["fitness"] == pytest.approx(found["test"][0]["metrics"]["fitness"])
    for most in (1000, 6):
        last_answer = last(opened(out, most_images=most), edits={"L4.H0": "zero"})
        assert {"fitness", "pairs/mean_recall", "birds/acc1"} <= {one["name"] for one in last_answer["metrics"]}


def test_evaluate_gives_a_mixture_what_its_parts_have_alone(mixture, run):
    code, found, err = run("evaluate", "demo", f"mix:{mixture}", "--json")
    assert code == 0, err
    alone = run("evaluate", "demo", mixture.parent / "pairs.csv", "--json")[1]
    labels = run("evaluate", "demo", mixture.parent / "birds.csv", "--templates", "plain", "--json")[1]
    for name, one in (("pairs", alone), ("birds", labels)):
        for metric, value in one["metrics"].items():
            if not metric.startswith("gallery"):
                assert found["metrics"][f"{name}/{metric}"] == value
    assert found["task"] == "mix"
    code, _, err = run("evaluate", "demo", f"mix:{mixture}", "--fitness", "acc1")
    assert code == 1
    assert "give fitness, templates, class names and distractors in the file" in err


GRADIENTS = ["--strategy", "bp", "--no-sweep", "--controls", "2", "--finalists", "2", "--json"]


def test_gradients_are_taken_of_a_mixture_too_and_resume(mixture, run, tmp_path):
    code, found, err = run("refine", "demo", f"mix:{mixture}", "-o", tmp_path / "out", *GRADIENTS)
    assert code == 0, err
    assert {strategy["name"] for strategy in found["strategies"]} >= {"bp"}
    assert run("refine", "demo", f"mix:{mixture}", "-o", tmp_path / "out", *GRADIENTS)[1] == found


def test_every_query_of_several_sources_goes_into_one_table(mixture, run, tmp_path):
    file = tmp_path / "queries.parquet"
    code, found, err = run(
        "evaluate", "demo", f"mix:{mixture}", mixture.parent / "pairs.csv", "--json", "--per-query", file
    )
    assert code == 0, err
    table = parquet.read_table(file).to_pylist()
    parts = {row["dataset"] for row in table}
    assert parts == {"pairs", "birds", found[1]["dataset"]}
    hits = [row["rank"] == 0 for row in table if row["dataset"] == "pairs" and row["task"] == "text_retrieval"]
    assert np.mean(hits) == pytest.approx(found[0]["metrics"]["pairs/text_retrieval_recall@1"])
    (tmp_path / "taken").write_text("")
    code, out, err = run(
        "evaluate", "demo", mixture.parent / "pairs.csv", "--per-query", tmp_path / "taken" / "q.parquet"
    )
    assert code == 1
    assert "taken" in err
    assert not out  # the place is looked at before anything is measured, so nothing is lost
    alone = [row for row in table if row["dataset"] == found[1]["dataset"]]
    assert [row["rank"] for row in alone] == [row["rank"] for row in table if row["dataset"] == "pairs"]


def test_a_mixture_is_swept(mixture, run):
    code, found, err = run("sweep", "demo", f"mix:{mixture}", "--json")
    assert code == 0, err
    assert "pairs/mean_recall" in found["sweep"]["identity"]


def test_cola_multi_object_end_to_end(folder, rows, run, tmp_path):
    data = []
    for i in range(IMAGES // 2):
        other = i + 2 * IMAGES  # neighbours show the same thing
        data.append([f"{i}.png", rows[i]["captions"][0], f"{other}.png", rows[other]["captions"][0]])
    (folder / "cola.json").write_text(json.dumps(data))
    source = f"cola:{folder / 'cola.json'}"
    code, found, err = run("evaluate", "demo", source, "--json")
    assert code == 0, err
    assert found["task"] == "cola_multi_object"
    assert 0.4 < found["metrics"]["multi_object_acc"] <= 1  # chance is a quarter; these captions do not swap words
    code, refined, err = run("refine", "demo", source, "-o", tmp_path / "out", *SMALL)
    assert code == 0, err
    assert refined["data"]["split_how"].startswith("by group")
    assert set(refined["test"][0]["metrics"]) == {"multi_object_acc"}
    assert refined["settings"]["objective"]["fitness"] == "multi_object_acc"
    code, learned, err = run("refine", "demo", source, "-o", tmp_path / "bp", *GRADIENTS)
    assert code == 0, err
    assert "L0.H0" in next(s for s in learned["strategies"] if s["name"] == "bp")["gates"]
    assert run("evaluate", "demo", source, "--per-query", tmp_path / "q.parquet")[0] == 0
    ranks = np.array([row["rank"] for row in parquet.read_table(tmp_path / "q.parquet").to_pylist()])
    assert (ranks.reshape(-1, 2).max(1) == 0).mean() == pytest.approx(found["metrics"]["multi_object_acc"])
    code, _, err = run("evaluate", "demo", source, "--fitness", "mean_recall")
    assert code == 1
    assert "its fitness is multi_object_acc" in err


def test_cola_single_object_end_to_end(folder, rows, run, tmp_path):
    queries = [rows[i]["captions"][0] for i in range(6)]
    labels = [[int(i % 6 == q) for q in range(6)] for i in range(IMAGES)]
    data = [[f"{i}.png", {}, labels[i], [1] * 6] for i in range(IMAGES)]
    (folder / "single.json").write_text(json.dumps({"labels": queries, "data": data}))
    source = f"cola:{folder / 'single.json'}"
    code, found, err = run("evaluate", "demo", source, "--json")
    assert code == 0, err
    assert found["task"] == "cola_single_object"
    assert 1 / 6 < found["metrics"]["mean_average_precision"] < 1
    code, swept, err = run("sweep", "demo", source, "--json")
    assert code == 0, err
    assert swept["sweep"]["identity"] == pytest.approx(
        {"mean_average_precision": found["metrics"]["mean_average_precision"]}
    )
    code, refined, err = run("refine", "demo", source, "-o", tmp_path / "out", *SMALL)
    assert code == 0, err
    assert set(refined["test"][0]["metrics"]) == {"mean_average_precision"}
    code, _, err = run("refine", "demo", source, "-o", tmp_path / "bp", *GRADIENTS)
    assert code == 0, err
    assert run("evaluate", "demo", source, "--per-query", tmp_path / "q.parquet")[0] == 0
    table = parquet.read_table(tmp_path / "q.parquet").to_pylist()
    precision = {}
    for query in {row["text"] for row in table}:
        ranks = sorted(row["rank"] for row in table if row["text"] == query)
        precision[query] = np.mean([(np.searchsorted(ranks, r, side="right")) / (r + 1) for r in ranks])
    assert np.mean(list(precision.values())) == pytest.approx(found["metrics"]["mean_average_precision"], rel=1e-6)


def test_chinese_clips_texts_of_several_images(folder, rows, run, tmp_path):
    """The same text as one of two images, and as a caption of each: only the first counts either image as right."""
    lines = [f"{i}\t{base64.b64encode(rows[i]['image']['bytes']).decode()}" for i in range(IMAGES)]
    texts = [{"text_id": i, "text": rows[i]["captions"][0], "image_ids": [i, (i + 1) % IMAGES]} for i in range(IMAGES)]
    once, twice = tmp_path / "once", tmp_path / "twice"
    for place, items in ((once, texts), (twice, [{**t, "image_ids": [i]} for t in texts for i in t["image_ids"]])):
        place.mkdir()
        (place / "test_imgs.tsv").write_text("\n".join(lines))
        (place / "test_texts.jsonl").write_text("\n".join(json.dumps(t) for t in items))
    code, found, err = run("evaluate", "demo", f"chinese-clip:{once}", "--json", "--per-query", tmp_path / "q.parquet")
    assert code == 0, err
    assert found["metrics"]["gallery_captions"] == IMAGES
    queries = parquet.read_table(tmp_path / "q.parquet").to_pylist()
    ranks = np.array([row["rank"] for row in queries if row["task"] == "image_retrieval"])
    assert len(ranks) == IMAGES
    assert (ranks < 5).mean() == found["metrics"]["image_retrieval_recall@5"]
    apart = run("evaluate", "demo", f"chinese-clip:{twice}", "--equal-captions", "own", "--json")[1]
    assert apart["metrics"]["gallery_captions"] == 2 * IMAGES
    shared = run("evaluate", "demo", f"chinese-clip:{twice}", "--json")[1]  # by default equal words are one text
    assert shared["metrics"] == found["metrics"]
    assert found["metrics"]["image_retrieval_recall@1"] > apart["metrics"]["image_retrieval_recall@1"]
    all_test = ("--split-by", "image")  # the files are named test_*: to be searched they have to be split on purpose
    code, refined, err = run("refine", "demo", f"chinese-clip:{once}", "-o", tmp_path / "out", *all_test, *SMALL)
    assert code == 0, err
    assert refined["data"]["captions"] == IMAGES
    code, _, err = run("refine", "demo", f"chinese-clip:{once}", "-o", tmp_path / "bp", *all_test, *GRADIENTS)
    assert code == 0, err


def test_the_cache_stays_within_its_bound(folder, rows, run, tmp_path, monkeypatch):
    options = ("--json", "--images", folder)  # the tables lie elsewhere
    first = write_csv(tmp_path / "a.csv", ["image", "caption"], [[folder / f"{i}.png", f"a {i}"] for i in range(8)])
    second = write_csv(
        tmp_path / "b.csv", ["image", "caption"], [[folder / f"{i}.png", f"b {i}"] for i in range(8, 16)]
    )
    size = lambda: sum(f.stat().st_size for f in (tmp_path / "cache" / "pixels").rglob("*") if f.is_file())  # noqa: E731
    assert run("evaluate", "demo", first, *options, "--cache-size", "1GB")[0] == 0
    one = size()
    for verb in ("evaluate", "sweep"):
        assert run(verb, "demo", second, *options, "--cache-size", f"{one * 1.5 / 1e6:.6f} MB")[0] == 0
        assert size() <= one * 1.5
    assert run("evaluate", "demo", first, *options)[0] == 0
    assert size() > one * 1.5  # unbounded
    monkeypatch.setenv("HEADWISE_CACHE_SIZE", "10kB")
    code, _, err = run("refine", "demo", first, "-o", tmp_path / "out", *options)
    assert code == 1
    assert "more than the cache size" in err
    code, _, err = run("evaluate", "demo", first, "--cache-size", "lots")
    assert code == 1
    assert "'lots' is not a cache size" in err


def test_metadata_as_waterbirds_has_it(rows, run, tmp_path):
    """img_id, img_filename, y, split (0, 1, 2), place: the attribute is in every split, the worst group counts."""
    place = tmp_path / "waterbirds"
    place.mkdir()
    lines = []
    for i in range(IMAGES):
        (place / f"{i}.jpg").write_bytes(rows[i]["image"]["bytes"])
        lines.append([i, f"{i}.jpg", i % 2, i // 4 % 3, i // 2 % 2, "x"])
    write_csv(place / "metadata.csv", ["img_id", "img_filename", "y", "split", "place", "place_filename"], lines)
    (tmp_path / "names.txt").write_text("circle\narrow\n")
    options = ["--group", "place", "--class-names", tmp_path / "names.txt", "--fitness", "worst_group_acc"]
    code, found, err = run("refine", "demo", place, "-o", tmp_path / "out", *options, *SMALL)
    assert code == 0, err
    assert found["data"]["split_how"] == "as given: 0 → search, 1 → pick, 2 → test"
    metrics = found["test"][0]["metrics"]
    groups = [value for name, value in metrics.items() if name.startswith("acc1 of ")]
    assert len(groups) == 4
    assert metrics["worst_group_acc"] == min(groups)
    stored = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert stored["hash"] == found["data"]["split_hash"]
    assert stored["test"] == [f"{i}.jpg" for i in range(IMAGES) if i // 4 % 3 == 2]
    code, out, err = run("sweep", "demo", place, *options)
    assert code == 0, err
    assert "Change of accuracy of the worst group when one head is suppressed" in " ".join(out.split())
    write_csv(place / "metadata.csv", ["img_filename", "y", "place"], [[line[1], line[2], line[4]] for line in lines])
    code, found, err = run("refine", "demo", place, "-o", tmp_path / "other", *options, *SMALL)
    assert code == 0, err
    assert found["data"]["split_how"].startswith("by image")
    theirs = found["data"]["split_hash"]
    code, found, err = run(
        "transfer", "demo", "--mask", tmp_path / "other", "--on", place, "-o", tmp_path / "t", *options, "--json"
    )
    assert code == 0, err  # of another split it would be refused
    assert found["data"][0]["split_how"].startswith("by image")
    few = ["--max-heads", "1", "--budget", "20", "--json"]
    code, found, err = run("compare", "demo", place, "-o", tmp_path / "c", *options, "--strategy", "greedy", *few)
    assert code == 0, err
    assert found["data"]["split_hash"] == theirs
    code, found, err = run("front", "demo", place, "-o", tmp_path / "f", *options, *few)
    assert code == 0, err
    assert found["data"]["split_hash"] == theirs
