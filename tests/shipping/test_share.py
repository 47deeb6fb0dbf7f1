"""Edits put on a hub and fetched from it, also without it; each snippet of their cards runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import torch
from local_hub import local_hub

from headwise.applied.check import masked_embeddings
from headwise.demo import model_folder
from headwise.edits.mask import Mask
from headwise.shipping.card import mask_card
from headwise.towers import load

EDITS = "L0.H1=zero, L5.H2=scale(0.25)"


def edits() -> Mask:
    live = load(str(model_folder()))
    mask = Mask.parse(live.tower.grid, EDITS)
    return mask.with_provenance(base_model=f"hf:{model_folder()}", weights_hash=live.tower.weights_hash)


def program(text: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_pushed_and_fetched(tmp_path):
    """The hub is a server on this machine; huggingface_hub's own client talks to it, and then to nobody."""
    edits().save_pretrained(tmp_path / "edits")
    with local_hub(tmp_path / "hub") as address:
        there = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_x"}
        there |= {"HF_HUB_DISABLE_XET": "1"}
        push = (
            "from headwise import Mask\nfrom headwise.shipping.share import push_to_hub\n"
            f"print(push_to_hub(Mask.from_pretrained({str(tmp_path / 'edits')!r}), 'me/refined', licence='mit'))"
        )
        assert "/me/refined/commit/" in program(push, **there)
        fetch = "from headwise import Mask\nprint(Mask.from_pretrained('me/refined'))"
        assert program(fetch, **there).strip() == EDITS
    assert program(fetch, **{**there, "HF_HUB_OFFLINE": "1"}).strip() == EDITS  # the server is gone
    card = (tmp_path / "hub" / "me" / "refined" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "headwise.Mask.from_pretrained('me/refined')" in card


@pytest.mark.parametrize("library", ["transformers", "sentence-transformers"])
def test_a_cards_snippets_run(library, tmp_path):
    pytest.importorskip(library.replace("-", "_"))
    mask = edits()
    mask.save_pretrained(tmp_path)
    card = mask_card(mask, str(tmp_path))
    snippet = re.search(rf"With {library}:\n\n```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    from PIL import Image

    images = [Image.effect_noise((80, 64), 90).convert("RGB"), Image.new("RGB", (64, 64), (200, 30, 90))]
    names: dict = {"images": images}
    exec(snippet.group(1), names)
    found = torch.as_tensor(names["features"].pooler_output if library == "transformers" else names["embeddings"])
    live = load(str(model_folder()))
    wanted = masked_embeddings(live, mask, torch.stack([live.preprocess(image) for image in images]))
    assert torch.cosine_similarity(found.float().detach(), wanted).min() > 0.999
