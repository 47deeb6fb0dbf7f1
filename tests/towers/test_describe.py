"""What `headwise inspect` and `headwise models` print."""

import json

import pytest
import torch
from cases import built
from golden import randomise

from headwise.cli.look import models
from headwise.edits.edit import KINDS
from headwise.edits.mask import Mask
from headwise.jobs.inspect import inspect
from headwise.towers import NAMES, tower_of, wrap
from headwise.towers.describe import families


@pytest.fixture(scope="module")
def siglip():
    """An open_clip SigLIP, with a stand-in for the tokenizer that only the hub has."""

    def tokenizer(texts):
        return torch.ones(len(texts), 64, dtype=torch.long)

    return wrap(built("open_clip SigLIP"), (lambda image: image, tokenizer))


def test_inspect_counts_what_is_there(siglip):
    facts = inspect(siglip)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["layers"], facts["pool_heads"], facts["heads"]) == ([12, 12], 12, 36)
    assert (facts["tokens"], facts["resolution"], facts["embedding"]) == (196, 224, 768)
    assert facts["parameters"] == sum(p.numel() for p in siglip.module.visual.parameters())
    assert facts["parameters_total"] > facts["parameters"]
    assert (facts["pooling"], facts["class_token"], facts["loss"]) == ("attention", False, "sigmoid")
    assert facts["text"]


def test_inspect_says_where_edits_apply_and_which_fold(siglip):
    edits = inspect(siglip)["edits"]
    applies = {"cls": "no", "cls_row": "no", "self": "blocks", "keys": "blocks", "queries": "blocks"}
    assert {name: entry["applies"] for name, entry in edits.items()} == {
        name: applies.get(name, "all heads") for name in KINDS
    }
    foldable = {"zero", "mean", "scale", "shift", "spectral", "uniform", "temperature", "keys", "queries"}
    assert {name for name, entry in edits.items() if entry["folds"]} == foldable
    assert edits["keys"]["rows"] == {"L0": "folds", "L1": "folds"}
    assert edits["self"]["rows"] == {"L0": "applies", "L1": "applies"}


def test_inspect_costs_a_sweep_less_than_the_hook_loop():
    """On a deep tower whose layers cost the same, a sweep costs about half of running it once per head."""
    import timm

    facts = inspect(wrap(randomise(timm.create_model("vit_tiny_patch16_224", depth=10, img_size=64))))
    loop, sweep = facts["ffe"]["hook_loop"], facts["ffe"]["sweep"]
    assert loop == 10 * 3 + 1
    assert 0.3 * loop < sweep < 0.55 * loop


def test_every_name_form_is_listed_and_every_example_has_a_known_form():
    listed = families()
    forms = [form for library in listed for form in library.forms]
    for prefix in NAMES:
        assert any(form.startswith(f"{prefix}:") for form in forms)
    for library in listed:
        for example in library.examples:
            assert example.partition(":")[0] in {"demo", *NAMES}
    installed = {library.name: library.version for library in listed}
    assert installed["timm"] == __import__("timm").__version__


def test_models_prints_every_form_and_whole_names(capsys, monkeypatch):
    monkeypatch.setattr("headwise.towers.describe._version", lambda package: None if package == "timm" else "1.0")
    models.__wrapped__()
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for library in families():
        for form, meaning in library.forms.items():
            assert any(line.startswith(form) and line.endswith(meaning) for line in lines), form
        for example in library.examples:
            assert f"for example {example}" in lines
    assert "timm not installed: pip install 'headwise[timm]'" in lines


def test_edits_in_inspect_are_those_that_heads_accept(siglip):
    tower = tower_of(siglip.module)
    for name, entry in inspect(siglip)["edits"].items():
        if KINDS[name].needs:
            name += "(0.5)"
        if entry["applies"] == "all heads":
            for head in tower.grid:
                tower.check_mask(Mask.suppress(tower.grid, [head], name))
