"""Edits put on a hub and fetched from it, also without it; each snippet of their cards runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from local_hub import local_hub

from headwise.applied.check import masked_embeddings
from headwise.demo import model_folder
from headwise.edits import hub
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.export import export
from headwise.shipping.share import push_to_hub
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


def environment(address: str, home: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_x",
        "HF_HUB_DISABLE_XET": "1",
    }


def test_pushed_and_fetched(tmp_path):
    """The hub is a server on this machine; huggingface_hub's own client talks to it, and then to nobody."""
    edits().save_pretrained(tmp_path / "edits")
    (tmp_path / "hub").mkdir()
    with local_hub(tmp_path / "hub") as address:
        there = environment(address, tmp_path / "home")
        push = (
            f"from headwise import Mask\nmask = Mask.from_pretrained({str(tmp_path / 'edits')!r})\n"
            "print(mask.push_to_hub('me/refined', private=True, token='hf_own', commit_message='First', licence='mit'))"
        )
        assert "/me/refined/commit/" in program(push, **there)
        fetch = "from headwise import Mask\nprint(Mask.from_pretrained('me/refined'))"
        assert program(fetch, **there).strip() == EDITS
    assert program(fetch, **{**there, "HF_HUB_OFFLINE": "1"}).strip() == EDITS  # the server is gone
    card = (tmp_path / "hub" / "me" / "refined" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n")
    assert "headwise.Mask.from_pretrained('me/refined')" in card
    asked = [json.loads(line) for line in (tmp_path / "hub" / "asked.jsonl").read_text().splitlines()]
    made = next(one["about"][0] for one in asked if one["path"].endswith("repos/create"))
    assert made.get("private") or made.get("visibility") == "private"
    commit = next(one for one in asked if "/commit/" in one["path"])
    assert commit["token"] == "hf_own"
    assert commit["about"][0]["value"]["summary"] == "First"


def test_an_export_is_pushed_whole_or_not_at_all(tmp_path):
    folder = export("demo", tmp_path / "delta", edits="L0.H1=zero", to="safetensors-delta").folder
    (tmp_path / "hub").mkdir()
    with local_hub(tmp_path / "hub") as address:
        push = f"from headwise.shipping.share import push_to_hub\nprint(push_to_hub({str(folder)!r}, 'me/delta'))"
        assert "/me/delta/commit/" in program(push, **environment(address, tmp_path / "home"))
    sent = {path.name for path in (tmp_path / "hub" / "me" / "delta").iterdir()}
    assert sent == {path.name for path in folder.iterdir()}
    weights = folder / "delta.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(HeadwiseError, match=r"delta\.safetensors"):
        push_to_hub(folder, "me/delta")
    with pytest.raises(HeadwiseError, match=r"holds no README\.md"):
        push_to_hub(tmp_path / "nothing", "me/delta")


@pytest.mark.parametrize("name", ["no-owner", "a/b/c", "../up", ""])
def test_a_name_that_is_none(name):
    with pytest.raises(HeadwiseError, match="is not the name of a repository of the hub"):
        edits().push_to_hub(name)


@pytest.mark.parametrize("what", ["no right", "no hub"])
def test_a_hub_that_does_not_take_it(what, tmp_path):
    edits().save_pretrained(tmp_path / "edits")
    (tmp_path / "hub").mkdir()
    push = (
        f"import headwise\nmask = headwise.Mask.from_pretrained({str(tmp_path / 'edits')!r})\n"
        "try:\n    mask.push_to_hub('me/refined', token='hf_none')\nexcept headwise.HeadwiseError as error:\n    print(error)"
    )
    with local_hub(tmp_path / "hub") as address:
        there = environment(address, tmp_path / "home")
        said = program(push, **there) if what == "no right" else ""
    said = said or program(push, **there)
    assert said.startswith("The hub did not take me/refined: ")
    assert "Check the name, the token (hf auth login, or token=) and the network." in said
    assert ("no right to write" in said) == (what == "no right")


@pytest.mark.parametrize("library", ["transformers", "sentence-transformers"])
def test_a_cards_snippets_run(library, tmp_path):
    pytest.importorskip(library.replace("-", "_"))
    mask = edits()
    mask.save_pretrained(tmp_path)
    card = hub.card(mask, str(tmp_path))
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
