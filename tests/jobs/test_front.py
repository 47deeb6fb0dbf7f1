"""`headwise front` and kept domains, end to end on a small random CLIP."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import randomise, write_pairs

from headwise.checked import read_results
from headwise.demo import model_folder
from headwise.edits.mask import Mask
from headwise.reports.front import front_text
from headwise.reports.kept import kept_section
from headwise.towers import load

pytest.importorskip("pymoo")
QUICK = ["--budget", "30", "--population", "8"]
REFINE = ["--budget", "250", "--population", "10", "--controls", "2", "--finalists", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A whole CLIP with random weights, 3 layers of 4 heads, and the packaged model's processor."""
    from transformers import AutoProcessor, CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    processor = AutoProcessor.from_pretrained(model_folder())
    size = processor.image_processor.crop_size["height"]
    common = {"intermediate_size": 64, "num_attention_heads": 4, "hidden_size": 64, "projection_dim": 24}
    vision = {**common, "num_hidden_layers": 3, "image_size": size, "patch_size": size // 4}
    ids = {"bos_token_id": processor.tokenizer.bos_token_id, "eos_token_id": processor.tokenizer.eos_token_id}
    text = {**common, **ids, "num_hidden_layers": 1, "vocab_size": len(processor.tokenizer)}
    text |= {"max_position_embeddings": processor.tokenizer.model_max_length}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    randomise(CLIPModel(config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("new"), 60)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("old"), 40, start=100)


@pytest.fixture(scope="module")
def older(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("older"), 30, start=200)


def results(done: tuple[int, str, str]) -> dict:
    assert done[0] == 0, done
    return json.loads(done[1])


def count(folder: Path) -> int:
    """Evaluations in all studies of a folder."""
    total = 0
    for path in folder.glob("*.sqlite"):
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as db:
                total += db.execute("SELECT count(*) FROM evaluations").fetchone()[0]
        except sqlite3.OperationalError:  # not made yet
            pass
    return total


# ---- front


def test_front_by_size_writes_a_front_and_the_mask_that_was_asked_for(run, model, new, tmp_path):
    printed = results(run("front", model, new, "-o", tmp_path / "o", "--max-heads", "3", *QUICK, "--json"))
    points = printed["points"]
    assert read_results(tmp_path / "o" / "front.json") == printed
    gains = [point["search"]["delta"] for point in points]
    sizes = [point["size"] for point in points]
    assert gains == sorted(gains, reverse=True)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(gains)) == len(gains)
    assert points[-1]["mask"] == "identity"
    chosen = printed["chosen"]
    assert chosen["size"] == max(size for size in sizes if size <= 3)
    mask = Mask.from_pretrained(tmp_path / "o" / "mask")
    assert str(mask) == chosen["mask"]
    assert mask.provenance["scores"]["test"]["delta"] == chosen["test"]["delta"]
    text = (tmp_path / "o" / "front.md").read_text()
    assert text == front_text(printed)
    assert text.count("← chosen") == 1
    assert (tmp_path / "o" / "front.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_of_the_front_are_those_that_evaluate_gives(run, model, tmp_path):
    table = write_pairs(tmp_path / "p", 60, splits=("search", "pick", "test"))
    printed = results(run("front", model, table, "-o", tmp_path / "o", "--max-heads", "2", *QUICK, "--json"))
    chosen = printed["chosen"]
    for split, fitness in (
        ("search", printed["points"][0]["search"]["fitness"]),
        ("pick", printed["points"][0]["pick"]["fitness"]),
    ):
        mask = printed["points"][0]["mask"]
        measured = results(run("evaluate", model, table, "--mask", mask, "--only-split", split, "--json"))
        assert measured["metrics"]["mean_recall"] == pytest.approx(fitness, abs=0.03)  # a tie may turn
    measured = results(run("evaluate", model, table, "--mask", chosen["mask"], "--only-split", "test", "--json"))
    assert measured["metrics"]["mean_recall"] == pytest.approx(chosen["test"]["after"]["mean_recall"], abs=0.03)


def test_without_a_choice_the_test_split_is_not_read(run, model, new, tmp_path):
    Mask.suppress(load("demo").tower.grid, ["L0.H0"]).save_pretrained(tmp_path / "o" / "mask")  # of a former choice
    code, out, err = run("front", model, new, "-o", tmp_path / "o", *QUICK)
    assert code == 0
    assert "test split was not read" in out
    assert not (tmp_path / "o" / "mask").exists()
    assert "mask/ of a former choice is now former-mask-1/." in err
    with sqlite3.connect(tmp_path / "o" / "study.sqlite") as db:
        assert {split for (split,) in db.execute("SELECT DISTINCT split FROM evaluations")} == {"search", "pick"}


def test_front_between_domains_keeps_the_limit_on_every_kept_pick_split(run, model, new, old, older, tmp_path):
    keep = ["--keep-domain", old, "--keep-domain", older, "--max-loss", "1"]
    printed = results(run("front", model, new, "-o", tmp_path / "o", *keep, *QUICK, "--json"))
    assert [kept["data"]["source"] for kept in printed["kept"]] == [str(old), str(older)]
    values = [(point["search"]["delta"], min(point["search"]["kept"])) for point in printed["points"]]
    assert values == sorted(values, reverse=True)
    assert [worst for _, worst in values] == sorted(worst for _, worst in values)
    chosen = printed["chosen"]
    assert len(chosen["kept"]) == 2
    for point in printed["points"]:
        if point["chosen"] and point["size"]:
            assert min(point["pick"]["kept"]) >= -0.01 - 1e-9
    text = (tmp_path / "o" / "front.md").read_text()
    assert "kept, pick" in text
    assert text.count("← chosen") == 1


def test_a_front_killed_twice_ends_with_the_bytes_of_an_uninterrupted_run(model, new, old, tmp_path):
    command = [sys.executable, "-m", "headwise", "front", model, new, "--keep-domain", old, "--max-loss", "2"]
    command += ["--budget", "60", "--population", "8", "--json"]
    subprocess.run([*command, "-o", tmp_path / "whole"], check=True, capture_output=True)
    total, seen = count(tmp_path / "whole"), 0
    for share in (0.1, 0.5):
        process = subprocess.Popen(
            [*command, "-o", tmp_path / "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and count(tmp_path / "killed") <= max(share * total, seen):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen = count(tmp_path / "killed")
    assert seen > 0
    subprocess.run([*command, "-o", tmp_path / "killed"], check=True, capture_output=True)
    for name in ("front.json", "front.md", "front.png", "mask/head_mask.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert count(tmp_path / "killed") == total


# ---- kept domains in refine


def test_refine_rules_out_masks_that_break_a_kept_domain(run, model, new, old, tmp_path):
    keep = ["--keep-domain", old, "--max-loss", "0"]
    code, out, _ = run("refine", model, new, "-o", tmp_path / "o", *REFINE, *keep)
    printed = json.loads((tmp_path / "o" / "results.json").read_text())
    kept = printed["kept"]
    assert code == 0
    assert "kept domain, test split" in out
    passed = {row["mask"] for row in kept["checked"] if row["passed"]}
    assert all((min(row["delta"]) >= -1e-9) == row["passed"] for row in kept["checked"])
    assert 0 < len(passed) < len(kept["checked"])
    assert {finalist["mask"] for finalist in printed["finalists"]} <= passed | {"identity"}
    assert printed["finalists"][0]["mask"] == "identity"
    assert len(printed["finalists"]) <= 5
    (domain,) = kept["domains"]
    assert domain["data"]["source"] == str(old)
    assert domain["delta"] == pytest.approx(domain["after"]["mean_recall"] - domain["before"]["mean_recall"])
    report = (tmp_path / "o" / "report.md").read_text()
    assert kept_section(printed) in report
    assert all(row["mask"] in report for row in kept["checked"] if not row["passed"])


def test_a_wide_limit_changes_nothing_but_the_number_of_masks_per_size(run, model, new, old, tmp_path):
    wide = results(run("refine", model, new, "-o", tmp_path / "w", *REFINE, "--keep-domain", old, "--max-loss", "100",
                       "--json"))  # fmt: skip
    free = results(run("refine", model, new, "-o", tmp_path / "f", *REFINE, "--json"))
    assert free["kept"] is None
    assert all(row["passed"] for row in wide["kept"]["checked"])
    assert wide["test"][0] == free["test"][0]
    assert wide["sweep"] == free["sweep"]
    assert wide["strategies"] == free["strategies"]


# ---- bad input


def refused(result: tuple[int, str, str], *words: str) -> None:
    assert result[0] == 1, result
    assert "Traceback" not in result[2]
    for word in words:
        assert word in result[2], result[2]


def test_bad_options_are_sentences(run, model, new, old, tmp_path):
    out = ["-o", tmp_path / "o"]
    refused(run("front", model, new, *out, "--max-loss", "1"), "--keep-domain")
    refused(run("refine", model, new, *out, "--max-loss", "1"), "--keep-domain")
    refused(run("front", model, new, *out, "--max-heads", "0"), "at least 1")
    refused(run("front", model, new, *out, "--keep-domain", old, "--max-loss", "-1"), "between 0 and 100")
    refused(run("refine", model, new, *out, "--keep-domain", old, "--max-loss", "101"), "between 0 and 100")
    refused(run("front", model, new, *out, "--operator", "banana"), "banana")
    refused(run("front", model, new, *out, "--population", "1"), "population")
    refused(run("front", model, new, *out, "--keep-domain", new), "same pairs")
    refused(run("refine", model, new, "-o", tmp_path / "p", "--keep-domain", old, "--keep-domain", old), "same pairs")
    refused(run("front", model, new, *out, "--keep-domain", tmp_path / "none.csv"), "none.csv")
    refused(run("refine", model, new, "-o", tmp_path / "q", "--strategy", "front"), "headwise front")
    refused(run("front", model, new, *out, "--max-heads", "99"), "has 12 heads")
    refused(run("front", model, new, *out, "--budget", "3"), "Give at least --budget 8")
    refused(run("front", model, new, *out, "--budget", "0"), "above 0")
    refused(run("refine", model, new, "-o", tmp_path / "r", "--width", "0"), "width")
    refused(run("refine", model, new, "-o", tmp_path / "s", "--race"), "--race")
    refused(run("refine", model, new, "-o", tmp_path / "s", "--strategy", "ga", "--width", "4"), "greedy")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    refused(run("front", model, new, "-o", tmp_path / "thesis"), "not empty")


def test_another_kept_domain_in_the_same_folder_is_refused(run, model, new, old, older, tmp_path):
    assert run("front", model, new, "-o", tmp_path / "o", "--keep-domain", old, *QUICK)[0] == 0
    refused(run("front", model, new, "-o", tmp_path / "o", "--keep-domain", older, *QUICK), "kept-1.sqlite")


def test_without_pymoo_the_command_says_what_to_install_before_it_starts(run, model, new, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    refused(run("front", model, new, "-o", tmp_path / "o", *QUICK), "headwise[fronts]")
    assert not (tmp_path / "o").exists()


# ---- the plan


@pytest.mark.parametrize(("heads", "with_kept"), [(None, True), (2, False)])
def test_the_plan_is_what_a_front_spends_and_writes_nothing(run, model, new, old, tmp_path, heads, with_kept):
    options = ["--max-heads", heads] if heads else []
    options += ["--keep-domain", old] if with_kept else []
    options += ["--budget", "60"]
    plan = results(run("front", model, new, "-o", tmp_path / "o", *options, "--dry-run", "--json"))
    assert not (tmp_path / "o").exists()
    stages = {stage["stage"].partition(" (")[0]: stage for stage in plan["stages"]}
    assert [*stages][:4] == ["sweep", "greedy", "NSGA-II", "the front on the pick split"]
    assert ("test split" in stages) == (heads is not None)
    found = results(run("front", model, new, "-o", tmp_path / "o", *options, "--json"))
    spent, about = found["ffe"], {name: stage["ffe"] for name, stage in stages.items()}
    searched = about["sweep"] + about["greedy"] + about["NSGA-II"]
    assert (
        0.7 * (spent["sweep and greedy"] + spent["front"])
        <= searched
        <= 1.3 * (spent["sweep and greedy"] + spent["front"])
    )
    assert spent["sweep and greedy"] <= stages["sweep"]["most"] + stages["greedy"]["most"] + 1e-6
    assert spent["front"] <= stages["NSGA-II"]["most"] + 1e-6
    assert sum(spent.values()) - spent.get("test", 0.0) <= plan["budget"] == 60
    assert all(stage["minutes"] >= 0 for stage in plan["stages"])
    table = run("front", model, new, "-o", tmp_path / "p", *options, "--dry-run")
    assert table[0] == 0
    assert "NSGA-II" in table[1]
    assert not (tmp_path / "p").exists()
