"""export from the command line, and what evaluate makes of it."""

import json
import re

import pytest

from .common import refused

MASK = "L0.H1=zero, L5.H2=zero"


@pytest.fixture(scope="module")
def exported(tmp_path_factory, request):
    """One export of the packaged model with two heads removed, for the tests that read it (torch's exporter takes
    about 10 s a tower)."""
    from headwise.jobs.export import export

    out = tmp_path_factory.mktemp("exported") / "onnx"
    return export("demo", out, edits=MASK)


def test_onnx_is_the_masked_model(exported, pairs, run):
    code, out, _ = run("evaluate", exported.folder, pairs, "--json")
    code2, masked, _ = run("evaluate", "demo", pairs, "--mask", MASK, "--json")
    assert code == code2 == 0
    assert json.loads(out)["metrics"] == pytest.approx(json.loads(masked)["metrics"], abs=0.02)
    assert exported.facts["image_cosine"] > 0.9999
    assert exported.facts["text_cosine"] > 0.9999
    assert exported.facts["mask"] == "pruned"


def test_the_cards_lines_run(exported, monkeypatch, capsys):
    import torch

    from headwise.towers import load

    text = (exported.folder / "README.md").read_text()
    snippet = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    monkeypatch.chdir(exported.folder)
    pixels = torch.randn(3, 3, 64, 64)
    names: dict = {"pixels": pixels.numpy()}
    exec(snippet, names)
    live = load("demo")
    from headwise import Mask, apply

    with torch.inference_mode(), apply(live, Mask.parse(live.tower.grid, MASK)):
        wanted = live.tower.encode(pixels)
    assert torch.cosine_similarity(torch.from_numpy(names["embeddings"]), wanted).min() > 0.9999


def test_metadata_is_in_the_file(exported):
    import onnx

    found = {p.key: p.value for p in onnx.load(exported.folder / "image.onnx").metadata_props}
    assert found["base_model"] == "demo"
    assert found["edits"] == MASK
    config = json.loads((exported.folder / "base" / "processor_config.json").read_text())["image_processor"]
    said = json.loads(found["preprocessing"])
    assert said["mean"] == pytest.approx(config["image_mean"], abs=1e-4)
    assert said["std"] == pytest.approx(config["image_std"], abs=1e-4)


def test_a_damaged_file_is_refused(exported, pairs, run, tmp_path):
    import shutil

    damaged = shutil.copytree(exported.folder, tmp_path / "damaged")
    content = bytearray((damaged / "text.onnx").read_bytes())
    content[5000] ^= 1
    (damaged / "text.onnx").write_bytes(content)
    refused(run("evaluate", damaged, pairs), "text.onnx is not what was written")


def test_an_export_has_no_heads_to_edit(exported, pairs, run):
    refused(run("evaluate", exported.folder, pairs, "--mask", "L0.H0=zero"), "can no longer be edited")
    refused(run("sweep", exported.folder, pairs, "-o", exported.folder.parent / "sweep"), "can no longer be edited")


def test_refusals(run, tmp_path):
    refused(run("export", "demo", "--to", "tea", "-o", tmp_path / "x"), "'tea' is not a form to export to")
    refused(run("export", "demo", "--precision", "int4", "-o", tmp_path / "x"), "'int4' is not a precision")
    refused(run("export", "demo", "--precision", "int8", "-o", tmp_path / "x"), "--on PAIRS")
    refused(run("export", "demo", "--caption", "c", "-o", tmp_path / "x"), "--caption says how --on is read")
    refused(run("export", "demo", "--to", "hf", "--precision", "float16", "-o", tmp_path / "x"), "for ONNX files alone")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "mine.txt").write_text("mine")
    refused(run("export", "demo", "-o", tmp_path / "y"), "holds other files")
    assert [path.name for path in tmp_path.iterdir()] == ["y"]
