"""What a merged model's card prints opens the folder, in each library that it names."""

from __future__ import annotations

import re

import pytest
import torch
from PIL import Image

from headwise.applied.check import masked_embeddings
from headwise.edits.mask import Mask
from headwise.jobs.merge import merge
from headwise.shipping.card import loading
from headwise.towers import load

EDITS = "L0.H1=zero, L5.H2=scale(0.25)"
IMAGES = [Image.effect_noise((80, 64), 90).convert("RGB"), Image.new("RGB", (64, 64), (200, 30, 90))]


def blocks(text: str, folder: object) -> dict[str, str]:
    """Library → its lines, with the folder that they are about."""
    found = re.findall(r"With ([\w-]+):\n\n```python\n(.*?)```", text, re.DOTALL)
    return {name: lines.replace("path/to/this/folder", str(folder)) for name, lines in found}


def test_transformers_and_sentence_transformers_open_it(tmp_path):
    """sentence-transformers reads a folder of transformers' CLIP as it is: it needs no modules.json."""
    pytest.importorskip("sentence_transformers")
    folder = merge("demo", EDITS, tmp_path / "merged").folder
    lines = blocks((folder / "README.md").read_text(encoding="utf-8"), folder)
    assert list(lines) == ["transformers", "sentence-transformers"]
    live = load("demo")
    wanted = masked_embeddings(
        live, Mask.parse(live.tower.grid, EDITS), torch.stack(list(map(live.preprocess, IMAGES)))
    )
    names: dict = {"images": IMAGES}
    exec(lines["sentence-transformers"], names)
    assert torch.cosine_similarity(torch.from_numpy(names["embeddings"]).float(), wanted).min() > 0.999  # float16
    exec(lines["transformers"], names)
    with torch.no_grad():
        found = names["model"].get_image_features(**names["processor"](images=IMAGES, return_tensors="pt"))
    assert torch.cosine_similarity(found.pooler_output.float(), wanted).min() > 0.999


def test_open_clip_and_timm_open_theirs(tmp_path):
    open_clip, timm = pytest.importorskip("open_clip"), pytest.importorskip("timm")
    from headwise.towers import wrap

    torch.manual_seed(0)
    model = wrap(open_clip.create_model("ViT-S-32-alt", pretrained=None), None, name="open_clip:ViT-S-32-alt")
    other = wrap(timm.create_model("test_vit", num_classes=0), None, name="timm:test_vit")
    for live, name in ((model, "open_clip"), (other, "timm")):
        folder = merge(live, "L0.H1=zero", tmp_path / name).folder
        lines = blocks((folder / "README.md").read_text(encoding="utf-8"), folder)
        assert list(lines) == [name]
        names: dict = {}
        exec(lines[name], names)
        pixels = torch.randn(2, 3, live.tower.resolution, live.tower.resolution)
        with torch.no_grad():
            found = names["model"].encode_image(pixels) if name == "open_clip" else names["model"](pixels)
        wanted = masked_embeddings(live, Mask.parse(live.tower.grid, "L0.H1=zero"), pixels)
        assert torch.cosine_similarity(found, wanted).min() > 0.9999


def test_a_tower_without_texts_is_not_for_sentence_transformers():
    assert "sentence" not in loading("Hugging Face CLIP", texts=False)
    assert "sentence" not in loading("Hugging Face Siglip")
