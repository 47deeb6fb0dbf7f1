"""The command line end to end, on the packaged model: results, artefacts, and every documented error."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import small_clip, write_pairs

from headwise.demo import model_folder
from headwise.evaluation.fingerprints import recorded

SMALL = ["--budget", "30", "--population", "10", "--controls", "4", "--finalists", "4"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 60)


@pytest.fixture(scope="module")
def refined(pairs, tmp_path_factory):
    """One finished run, for the tests that read it."""
    out = tmp_path_factory.mktemp("refined") / "out"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "headwise",
            "refine",
            "demo",
            pairs,
            "-o",
            out,
            *SMALL,
            "--operator",
            "zero,mean",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return out, json.loads(done.stdout)


def test_refine_writes_every_artefact_and_prints_what_it_wrote(refined):
    out, printed = refined
    assert {p.name for p in out.iterdir()} >= {
        "README.md", "head_mask.json", "heads.png", "model", "report.md", "results.json", "study.sqlite",
    }  # fmt: skip
    assert json.loads((out / "results.json").read_text()) == printed
    rows = {row["what"]: row for row in printed["test"]}
    assert {"identity", "best single head", "ga", "chosen"} <= set(rows)
    assert rows["identity"]["delta"] == 0
    assert sum(f["chosen"] for f in printed["finalists"]) == 1
    assert printed["finalists"][0]["mask"] == "identity"
    parts = printed["data"]["splits"]
    assert sum(part["images"] for part in parts.values()) == printed["data"]["images"] == 60


def test_numbers_of_the_test_table_are_those_that_evaluate_gives(refined, pairs, run):
    """The same images, in the same precision, through the other verb."""
    _, printed = refined
    code, out, _ = run("evaluate", "demo", pairs, "--json")
    whole = json.loads(out)
    assert code == 0
    assert whole["metrics"]["mean_recall"] > 0
    assert set(whole["metrics"]) >= {"image_retrieval_recall@1", "text_retrieval_recall@10"}
    assert set(printed["test"][0]["metrics"]) == {k for k in whole["metrics"] if k in printed["test"][0]["metrics"]}


def test_the_same_command_again_gives_the_same_bytes_and_evaluates_nothing(refined, pairs, run):
    out, printed = refined
    before = (out / "results.json").read_bytes()
    evaluations = count(out)
    code, again, _ = run("refine", "demo", pairs, "-o", out, *SMALL, "--operator", "zero,mean", "--json")
    assert code == 0
    assert json.loads(again) == printed
    assert (out / "results.json").read_bytes() == before
    assert count(out) == evaluations


def test_a_run_killed_twice_ends_with_the_bytes_of_an_uninterrupted_run(refined, pairs, tmp_path):
    expected = (refined[0] / "results.json").read_bytes()
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "headwise", "refine", "demo", pairs, "-o", out, *SMALL, "--operator", "zero,mean"]
    total, seen = count(refined[0]), 0
    for share in (0.1, 0.5):  # in the first sweep, and in a later search
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and count(out) <= max(share * total, seen):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert count(out) >= seen  # what was finished stays
        seen = count(out)
    assert seen > 0
    subprocess.run([*command, "--json"], check=True, capture_output=True)
    assert (out / "results.json").read_bytes() == expected
    assert count(out) == total  # nothing was recorded that an uninterrupted run does not record


def count(out: Path) -> int:
    import sqlite3

    path = out / "study.sqlite"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as db:
            return db.execute("SELECT count(*) FROM evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # not made yet
        return 0


def test_two_processes_share_one_study(refined, pairs, tmp_path):
    out = tmp_path / "shared"
    command = [sys.executable, "-m", "headwise", "refine", "demo", pairs, "-o", out, *SMALL, "--operator", "zero,mean"]
    both = [
        subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert (out / "results.json").read_bytes() == (refined[0] / "results.json").read_bytes()


def test_the_refined_model_loads_without_headwise_and_gives_the_masked_models_numbers(refined, pairs, run):
    out, printed = refined
    code, merged, _ = run("evaluate", out / "model", pairs, "--json")
    assert code == 0
    code, masked, _ = run("evaluate", "demo", pairs, "--mask", out, "--json")
    assert code == 0
    a, b = json.loads(merged)["metrics"], json.loads(masked)["metrics"]
    assert a == pytest.approx(b, abs=0.02)  # float32 folding may turn a tie
    assert json.loads(masked)["mask"] == printed["chosen"]["mask"]
    script = (
        "import sys; from transformers import CLIPModel, CLIPProcessor;"
        f"CLIPModel.from_pretrained({str(out / 'model')!r}); CLIPProcessor.from_pretrained({str(out / 'model')!r});"
        "assert 'headwise' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_sweep_prints_and_writes_every_head(pairs, run, tmp_path):
    code, out, _ = run("sweep", "demo", pairs, "-o", tmp_path / "s", "--json")
    assert code == 0
    heads = json.loads(out)["sweep"]["heads"]
    assert len(heads) == 36
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["sweep"]["heads"] == heads
    assert (tmp_path / "s" / "heads.png").read_bytes().startswith(b"\x89PNG")


def test_merge_of_a_mask_as_text(pairs, run, tmp_path):
    code, out, _ = run("merge", "demo", "zero:L0.H1,L5.H2", "-o", tmp_path / "m", "--json")
    assert code == 0
    assert json.loads(out)["relative_difference"] < 1e-5
    code, out, _ = run("evaluate", tmp_path / "m", pairs, "--json")
    code2, masked, _ = run("evaluate", "demo", pairs, "--mask", "zero:L0.H1,L5.H2", "--json")
    assert code == code2 == 0
    assert json.loads(out)["metrics"] == pytest.approx(json.loads(masked)["metrics"], abs=0.02)


def test_python_api_gives_what_the_command_line_gives(refined, pairs):
    import headwise
    from headwise.search.genome import GeneticSettings

    settings = headwise.Settings(
        operators=("zero", "mean"), controls=4, finalists=4, budget=30.0, genetic=GeneticSettings(population=10)
    )
    began = recorded(refined[0] / "study.sqlite")["machine"]["threads"]  # the command line took the machine's default
    torch.set_num_threads(began)
    found = headwise.refine("demo", pairs, settings=settings)
    assert found.results == refined[1]  # the same threads, processor and torch: the same bits
    assert found.folder is None
    torch.set_num_threads(3 - began if began < 3 else 1)
    other = headwise.refine("demo", pairs, settings=settings)
    assert other.mask == found.mask
    assert_near(other.results, found.results)


def assert_near(found: object, expected: object, where: str = "results") -> None:
    """What the README promises of another number of threads: losses within 1e-5, everything else equal."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            assert_near(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_near(found[number], value, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5), where
    else:
        assert found == expected, where


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "refine", "sweep", "evaluate", "merge"):
        assert command in out
        assert run(command, "--help")[0] == 0
    assert run("--version")[1].strip() == "0.1.0"


# ---- every documented error: exit 1, a sentence on standard error, no traceback


def refused(result: tuple[int, str, str], *words: str, code: int = 1) -> str:
    assert result[0] == code, result
    assert "Traceback" not in result[2]
    for word in words:
        assert word in result[2], result[2]
    return result[2]


def test_wrong_usage_exits_with_2(run):
    refused(run("refine", "demo"), code=2)
    refused(run("evaluate", "demo", "x.csv", "--banana"), "--banana", code=2)


def test_unknown_operator(run, pairs, tmp_path):
    for verb in ("refine", "front"):
        refused(run(verb, "demo", pairs, "-o", tmp_path / verb, "--operator", "zeros"), "'zeros' is not an operator")
    refused(run("sweep", "demo", pairs, "--operator", "zero,mean"), "'zero,mean' is not an operator", "cls_row")


def test_unknown_model(run, pairs):
    refused(run("evaluate", "hf:no/such-model", pairs), "hf:no/such-model", "save_pretrained")
    refused(run("evaluate", "nonsense", pairs), "nonsense", "hf:")


def test_model_folder_with_missing_or_broken_files(run, pairs, tmp_path):
    for broken in ("model.safetensors", "config.json"):
        folder = tmp_path / broken.split(".")[0]
        shutil.copytree(model_folder(), folder)
        (folder / broken).unlink()
        refused(run("evaluate", folder, pairs), str(folder))
    folder = tmp_path / "truncated"
    shutil.copytree(model_folder(), folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(run("evaluate", folder, pairs), str(folder))


def test_not_a_clip(run, pairs, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 16}))
    refused(run("evaluate", tmp_path, pairs), "bert")


def test_model_without_a_text_tower(run, pairs, tmp_path):
    from transformers import AutoImageProcessor

    small_clip().save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(model_folder()).save_pretrained(tmp_path)
    refused(run("evaluate", tmp_path, pairs, "--image-size", 32), "text tower")


def test_mask_for_another_model(run, pairs, tmp_path, refined):
    import headwise

    headwise.Mask.identity(headwise.Grid((12,) * 12)).save_pretrained(tmp_path / "grid")
    refused(run("evaluate", "demo", pairs, "--mask", tmp_path / "grid"), "12 layers x 12 heads")
    other = headwise.Mask.suppress(headwise.Grid((6,) * 6), ["L0.H0"]).with_provenance(weights_hash="0" * 32)
    other.save_pretrained(tmp_path / "weights")
    refused(run("evaluate", "demo", pairs, "--mask", tmp_path / "weights"), "--no-check-weights")
    assert run("evaluate", "demo", pairs, "--mask", tmp_path / "weights", "--no-check-weights", "--json")[0] == 0
    refused(run("evaluate", "demo", pairs, "--mask", tmp_path / "nothing-here"), "nothing-here")
    refused(run("evaluate", "demo", pairs, "--mask", "zero:L9.H9"), "L9.H9")
    refused(run("merge", "demo", "cls:L0.H0", "-o", tmp_path / "m"), "uniform")
    assert not (tmp_path / "m").exists()


def test_missing_column_empty_file_one_pair(run, tmp_path):
    (tmp_path / "a.csv").write_text("foo,bar\n1,2\n")
    refused(run("refine", "demo", tmp_path / "a.csv", "-o", tmp_path / "o"), "foo", "bar")
    (tmp_path / "b.csv").write_text("")
    refused(run("refine", "demo", tmp_path / "b.csv", "-o", tmp_path / "o"), "b.csv")
    one = write_pairs(tmp_path / "one", 1)
    refused(run("refine", "demo", one, "-o", tmp_path / "o"), "1 image")
    refused(run("refine", "demo", tmp_path / "none.csv", "-o", tmp_path / "o"), "none.csv", "does not exist")


def test_bad_images_are_listed_at_once_and_skipped_when_asked(run, tmp_path):
    from PIL import Image

    table = write_pairs(tmp_path, 12)
    good = next(p for p in (tmp_path / "images").iterdir()).read_bytes()
    (tmp_path / "images" / "truncated.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "images" / "text.png").write_text("not an image")
    Image.new("1", (20000, 20000)).save(tmp_path / "images" / "bomb.png")
    first = len(table.read_text().splitlines()) + 1
    lines = range(first, first + 4)
    with table.open("a") as file:
        for name in ("missing.png", "truncated.png", "text.png", "bomb.png"):
            file.write(f"images/{name},a {name}\n")
    message = refused(
        run("evaluate", "demo", table), "missing.png", "not an image", "bomb", *map("line {}".format, lines)
    )
    assert "4" in message
    assert "--skip-bad" in message
    code, out, err = run("evaluate", "demo", table, "--skip-bad", "--json")
    assert code == 0, err
    assert json.loads(out)["metrics"]["gallery_images"] == 12


def test_empty_or_non_text_captions(run, tmp_path):
    table = write_pairs(tmp_path, 6)
    shutil.copy(tmp_path / "images" / "0.png", tmp_path / "images" / "silent.png")
    with table.open("a") as file:
        file.write("images/0.png,\nimages/silent.png,\n")  # a blank cell is no caption; 0.png has others
    found = run("evaluate", "demo", table)
    refused(found, "the caption is empty")
    assert "1 of " in found[2]
    records = [{"image": f"images/{i}.png", "caption": 7 if i == 3 else "a thing"} for i in range(6)]
    (tmp_path / "n.jsonl").write_text("\n".join(map(json.dumps, records)))
    refused(run("evaluate", "demo", tmp_path / "n.jsonl"), "caption")


def test_duplicate_images_across_given_splits(run, tmp_path):
    table = write_pairs(tmp_path, 9, splits=("search", "pick", "test"))
    shutil.copy(tmp_path / "images" / "0.png", tmp_path / "images" / "copy.png")
    with table.open("a") as file:
        file.write("images/copy.png,a copy,test\n")
    refused(run("refine", "demo", table, "-o", tmp_path / "o"), "two splits", "(search)", "(test)")


def test_output_folder_of_a_different_study_or_of_something_else(run, refined, tmp_path):
    other = write_pairs(tmp_path / "other", 30, start=100)
    before = (refined[0] / "results.json").read_bytes()
    refused(run("refine", "demo", other, "-o", refined[0], *SMALL), "another study", "data.pairs")
    assert (refined[0] / "results.json").read_bytes() == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("precious")
    refused(run("refine", "demo", other, "-o", tmp_path / "thesis"), "not empty")
    (tmp_path / "file").write_text("x")
    refused(run("refine", "demo", other, "-o", tmp_path / "file"), "is a file")


def test_unknown_settings(run, pairs, tmp_path):
    for option, value in (("--operator", "banana"), ("--strategy", "luck"), ("--dtype", "int3"), ("--finalists", "0")):
        refused(run("refine", "demo", pairs, "-o", tmp_path / "o", option, value))
    refused(run("evaluate", "demo", pairs, "--device", "cuda:9"), "cuda")
    for device in ("meta", "xpu"):
        refused(run("evaluate", "demo", pairs, "--device", device), f"device '{device}'", "--device cpu")
    refused(run("evaluate", "demo", pairs, "--templates", "openai7"), "labels")
    refused(run("refine", "demo", pairs, "-o", tmp_path / "o", "--gates", "top_k"), "--max-heads")
    refused(run("refine", "demo", pairs, "-o", tmp_path / "o", "--keep-soft"), "add bp to --strategy")
    refused(
        run("refine", "demo", pairs, "-o", tmp_path / "o", "--strategy", "greedy", "--flip", "0.1"),
        "--flip: about AAT-GA",
    )


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a small file system")
def test_a_full_disk_leaves_nothing_half_written(pairs, refined, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        command = [sys.executable, "-m", "headwise", "refine", "demo", pairs, "-o", small / "out", *SMALL]
        done = subprocess.run([*command, "--operator", "zero,mean"], capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "No space left" in done.stderr
        assert "Missing: model/." in done.stderr
        for name in ("results.json", "splits.json", "head_mask.json", "report.md", "heads.png"):  # all that has room
            whole = (refined[0] / name).read_bytes()
            assert name == "report.md" or (small / "out" / name).read_bytes() == whole, name
        assert "is the refined model" not in (small / "out" / "report.md").read_text()
        assert not (small / "out" / "model").exists()
        leftovers = [p for p in (small / "out").rglob("*") if "partial" in p.name]
        assert not leftovers
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        subprocess.run([*command, "--operator", "zero,mean"], check=True, capture_output=True)
        assert (small / "out" / "results.json").read_bytes() == (refined[0] / "results.json").read_bytes()
    finally:
        subprocess.run(["umount", small], check=False)
