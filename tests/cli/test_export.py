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


def test_openvino_is_the_masked_model(pairs, run, tmp_path):
    """Its files, what evaluate and verify make of them, and the card's lines. (torch's exporter takes its 20 s first.)"""
    import torch

    pytest.importorskip("openvino")
    folder = tmp_path / "ov"
    code, out, err = run("export", "demo", "--edits", MASK, "--to", "openvino", "--precision", "float16", "-o", folder)
    assert code == 0, err
    assert sorted(path.suffix for path in folder.iterdir() if path.stem == "image") == [".bin", ".xml"]
    code, out, _ = run("evaluate", folder, pairs, "--json")
    _, masked, _ = run("evaluate", "demo", pairs, "--mask", MASK, "--json")
    assert code == 0
    assert json.loads(out)["metrics"] == pytest.approx(json.loads(masked)["metrics"], abs=0.02)
    assert run("verify", folder, "--edits", MASK, "--base", "demo")[0] == 0
    text = (folder / "README.md").read_text()
    snippet = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0].replace("image.xml", f"{folder}/image.xml")
    names: dict = {"pixels": torch.zeros(2, 3, 64, 64).numpy()}
    exec(snippet, names)
    assert names["embeddings"].shape == (2, 192)


def test_openvino_in_float32_is_the_onnx_file(exported, tmp_path):
    import shutil

    import torch

    from headwise.shipping.onnx import OnnxReport
    from headwise.shipping.openvino import to_openvino
    from headwise.towers import load

    pytest.importorskip("openvino")
    folder = shutil.copytree(exported.folder, tmp_path / "ov")
    before = OnnxReport(**{key: value for key, value in exported.facts.items() if key in OnnxReport.__annotations__})
    images = torch.randn(2, 3, 64, 64)
    found = to_openvino(load("demo"), folder, before, precision="float32", images=images, texts=["a cat", "a dog"])
    assert min(found.image_cosine, found.text_cosine) > 0.9999
    assert not list(folder.glob("*.onnx"))


def test_openvino_tells_nobody_of_itself(tmp_path):
    """Its package sends an event at every import, unless its telemetry is not there."""
    import subprocess
    import sys

    pytest.importorskip("openvino")
    program = "import sys; from headwise.towers.sessions import openvino; openvino(); print(sys.modules['openvino_telemetry'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_refusals(run, tmp_path):
    refused(run("export", "demo", "--to", "openvino", "--precision", "int8", "-o", tmp_path / "x"), "not in int8")
    refused(run("export", "demo", "--to", "tea", "-o", tmp_path / "x"), "'tea' is not a form to export to")
    refused(run("export", "demo", "--precision", "int4", "-o", tmp_path / "x"), "'int4' is not a precision")
    refused(run("export", "demo", "--precision", "int8", "-o", tmp_path / "x"), "--on PAIRS")
    refused(run("export", "demo", "--caption", "c", "-o", tmp_path / "x"), "--caption says how --on is read")
    refused(
        run("export", "demo", "--to", "hf", "--precision", "float16", "-o", tmp_path / "x"),
        "is for onnx and openvino alone",
    )
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "mine.txt").write_text("mine")
    refused(run("export", "demo", "-o", tmp_path / "y"), "holds other files")
    assert [path.name for path in tmp_path.iterdir()] == ["y"]
