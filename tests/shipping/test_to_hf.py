"""open_clip's CLIP as transformers' and back: full-size models with random weights that open_clip itself made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from headwise.applied.check import masked_embeddings
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.export import export
from headwise.shipping.to_hf import check_parts
from headwise.towers import load, wrap
from headwise.towers.base import Model

open_clip = pytest.importorskip("open_clip")
FULL, SMALL = "ViT-B-32-quickgelu", "headwise-small"
EDITS = "L0.H1=zero, L1.H2=scale(0.25)"


def made(name: str) -> Model:
    """open_clip's own model with its own random weights, as the user of a trained one has it."""
    torch.manual_seed(0)
    module = open_clip.create_model(name, pretrained=None)
    return wrap(module, None, name=f"open_clip:{name}")


@pytest.fixture
def small(tmp_path):
    """An architecture of two thin blocks, known to open_clip by its name, otherwise like ViT-B-32; changed as asked."""

    def make(vision: dict | None = None, **options: object) -> Model:
        config = open_clip.get_model_config("ViT-B-32")
        config["vision_cfg"] |= {"layers": 2, "width": 128, "head_width": 32, **(vision or {})}
        config["text_cfg"] |= {"layers": 2, "width": 64, "heads": 2}
        (tmp_path / f"{SMALL}.json").write_text(json.dumps(config | options))
        open_clip.add_model_config(tmp_path)
        return made(SMALL)

    yield make
    factory = open_clip.factory
    factory._MODEL_CONFIG_PATHS[:] = [path for path in factory._MODEL_CONFIG_PATHS if path != tmp_path]
    factory._rescan_model_configs()


@pytest.mark.parametrize("name", [FULL, SMALL])
def test_there_and_back(name, small, tmp_path):
    """transformers' own class with its own processor gives what open_clip gives, and comes back as the same tensors."""
    import transformers

    model = made(name) if name == FULL else small()
    report = export(model, tmp_path / "hf", edits=EDITS, to="hf")
    assert "drawings and their captions" in report.sentence
    again = transformers.CLIPModel.from_pretrained(tmp_path / "hf").eval()
    assert again.config.vision_config.hidden_act == ("quick_gelu" if "quick" in name else "gelu")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "hf")
    texts = ["a photo of a dog", "two red buses, parked", "Straße"]
    with torch.no_grad():
        inputs = processor(text=texts, return_tensors="pt", padding=True)
        found = again.get_text_features(**inputs).pooler_output  # (T, E)
        wanted = model.module.encode_text(open_clip.get_tokenizer(name)(texts))
        assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
        images = torch.randn(2, 3, 224, 224)
        found = again.get_image_features(pixel_values=images).pooler_output  # (B, E)
    wanted = masked_embeddings(model, Mask.parse(model.tower.grid, EDITS), images)
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()

    back = load(str(export(str(tmp_path / "hf"), tmp_path / "back", to="open_clip").folder))
    names = {"L0.H1", "L1.H2"}
    for key, tensor in back.module.state_dict().items():
        own = model.module.state_dict()[key]
        edited = any(f"visual.transformer.resblocks.{n[1:].partition('.')[0]}.attn." in key for n in names)
        assert edited or torch.equal(tensor, own), key


def test_a_text_tower_in_a_part_of_its_own(small, tmp_path):
    """CustomTextCLIP keeps its text tower under `text.`."""
    model = small(custom_text=True)
    assert type(model.module).__name__ == "CustomTextCLIP"
    assert "drawings" in export(model, tmp_path / "hf", to="hf").sentence


@pytest.mark.parametrize(
    ("vision", "options", "words"),
    [
        ({"ls_init_value": 0.1}, {}, "there is no place for its visual.transformer.resblocks.0.ls_1.gamma"),
        ({"no_ln_pre": True}, {}, "it has no visual.ln_pre.bias"),
        ({"pool_type": "avg"}, {}, "it pools by avg"),
        ({}, {"init_logit_bias": -10.0}, "there is no place for its logit_bias"),
    ],
)
def test_parts_that_transformers_has_no_place_for(vision, options, words, small, tmp_path):
    with pytest.raises(HeadwiseError, match=f"transformers' CLIPModel: {words}"):
        export(small(vision, **options), tmp_path / "out", to="hf")
    assert not Path(tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("coca_ViT-B-32", "it is a CoCa"), ("ViT-B-16-SigLIP", "around other parts"), ("RN50", "around other parts")],
)
def test_families_that_are_none(name, words):
    module = open_clip.create_model(name, pretrained=None, load_weights=False, device="meta")
    with pytest.raises(HeadwiseError, match=f"transformers' CLIPModel: .*{words}"):
        check_parts(module, name)
