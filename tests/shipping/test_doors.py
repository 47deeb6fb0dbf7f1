"""Folders of other libraries: the lines of their cards run, and give what the live model gives under its edits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from headwise.applied.check import masked_embeddings
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.export import export
from headwise.towers import load

EDITS = ", ".join(f"L0.H{i}=zero" for i in range(6)) + ", L5.H2=zero"  # the first block loses its attention
AFTER = {
    "hf": "embed = lambda: model.get_image_features(pixel_values=pixels)",
    "pruned": "embed = lambda: model.get_image_features(pixel_values=pixels)",
    "open_clip": "embed = lambda: model.encode_image(pixels)",
    "torch": "embed = lambda: embeddings",
    "safetensors-delta": "embed = lambda: model.get_image_features(pixel_values=pixels)",
    "sentence-transformers": "embed = lambda: model[0].model.get_image_features(pixel_values=pixels)",
}
BASE = "from transformers import AutoModel\nfrom headwise.demo import model_folder\n"
BASE += "model = AutoModel.from_pretrained(model_folder(), dtype=torch.float32)\n"


@pytest.fixture(scope="module")
def wanted() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, 3, R, R), and the live model's embeddings of them under the edits."""
    live = load("demo")
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    return images, masked_embeddings(live, Mask.parse(live.tower.grid, EDITS), images)


@pytest.mark.parametrize("to", AFTER)
def test_the_cards_lines_run_in_a_process_of_their_own(to, wanted, tmp_path):
    """As a reader copies them; headwise is imported for the packaged base model alone (safetensors-delta)."""
    pytest.importorskip({"open_clip": "open_clip", "sentence-transformers": "sentence_transformers"}.get(to, "torch"))
    folder = export("demo", tmp_path / "out", edits=EDITS, to=to).folder
    card = (folder / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[0].replace("path/to/this/folder", str(folder))
    lines = lines.replace('"image.pt2"', f'"{folder}/image.pt2"')
    lines = lines.replace("embeddings = model.encode(images)", "embeddings = model.encode(['a cat'])")
    np.save(tmp_path / "pixels.npy", wanted[0].numpy())
    program = (
        f"import torch, numpy\npixels = torch.from_numpy(numpy.load({str(tmp_path / 'pixels.npy')!r}))\n"
        + (BASE if to == "safetensors-delta" else "")
        + lines
        + AFTER[to]
        + "\nwith torch.no_grad():\n    found = embed()\n"
        + "found = getattr(found, 'pooler_output', found).detach().float().numpy()\n"
        + f"numpy.save({str(tmp_path / 'found.npy')!r}, found)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.from_numpy(np.load(tmp_path / "found.npy"))
    assert torch.cosine_similarity(found, wanted[1]).min() > 0.999  # the packaged model is stored as float16


def test_no_pickle_in_any_export(tmp_path):
    import zipfile

    folder = export("demo", tmp_path / "out", edits=EDITS, to="torch").folder
    with zipfile.ZipFile(folder / "image.pt2") as archive:
        for name in archive.namelist():
            assert not archive.read(name).startswith(b"PK"), name
            assert not name.endswith((".pkl", ".pickle")), name
            assert b"\x80\x02c" not in archive.read(name)[:8], name


def test_a_pruned_folder_is_refused_by_headwise_itself(tmp_path):
    """It brings code, which headwise never runs; transformers asks first."""
    folder = export("demo", tmp_path / "out", edits=EDITS, to="pruned").folder
    with pytest.raises(HeadwiseError):
        load(str(folder))


def test_doors_that_are_closed(tmp_path):
    for to, edits, words in (
        ("timm", EDITS, "cannot be written for timm"),
        ("hf", "L0.H0=cls", "does not fold"),
        ("pruned", "L0.H0=uniform", "nothing to prune"),
    ):
        with pytest.raises(HeadwiseError, match=words):
            export("demo", tmp_path / "out", edits=edits, to=to)
        assert not Path(tmp_path / "out").exists()
