"""Every documented error: exit 1, a sentence on standard error, no traceback; help and version."""

import json
import shutil

from conftest import small_clip, write_pairs

from headwise.demo import model_folder

from .common import SMALL, refused


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in ("demo", "refine", "sweep", "evaluate", "merge"):
        assert command in out
        assert run(command, "--help")[0] == 0
    assert run("--version")[1].strip() == "0.1.0"


def test_wrong_usage_exits_with_2(run):
    refused(run("refine", "demo"), code=2)
    refused(run("evaluate", "demo", "x.csv", "--banana"), "--banana", code=2)


def test_unknown_operator(run, pairs, tmp_path):
    for verb in ("refine", "front"):
        refused(run(verb, "demo", pairs, "-o", tmp_path / verb, "--operator", "zeros"), "'zeros' is not an edit")
    refused(run("sweep", "demo", pairs, "--operator", "zero,mean"), "'zero,mean' is not an edit", "Write zero")


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
    refused(run("evaluate", "demo", pairs, "--mask", "L9.H9=zero"), "L9.H9")
    refused(run("merge", "demo", "L0.H0=cls", "-o", tmp_path / "m"), "uniform")
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
