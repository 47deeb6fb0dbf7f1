"""Checkpoint files of every trainer load where a prefix or a container is all that is between, else say what they are."""

import argparse
import json
import pickle
from pathlib import Path

import golden
import pytest
import torch
from cases import timm_model
from folders import OPEN_CLIP, clip_folder
from processors import real_pairs
from safetensors.torch import save_file

from headwise.errors import HeadwiseError, cause
from headwise.towers import load


@pytest.fixture
def architecture(tmp_path):
    """A small open_clip architecture under a name of its own."""
    import open_clip
    from open_clip import factory

    path = tmp_path / "headwise-test-checkpoint.json"
    path.write_text(json.dumps(OPEN_CLIP))
    open_clip.add_model_config(path)
    yield path.stem
    factory._MODEL_CONFIG_PATHS.remove(path)
    del factory._MODEL_CONFIGS[path.stem]


def named(state: dict, prefix: str, **others: torch.Tensor) -> dict:
    return {f"{prefix}{key}": value for key, value in state.items()} | others


WRAPPED = {
    "Lightning": lambda s: {"state_dict": named(s, "model."), "epoch": 3, "global_step": 9, "pytorch-lightning_version": "2"},
    "Lightning with a loss": lambda s: {"state_dict": named(s, "net.clip.", **{"loss.weight": torch.ones(3)})},
    "model_state_dict": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}},
    "DataParallel": lambda s: named(s, "module."),
    "compiled": lambda s: named(s, "_orig_mod."),
    "compiled and distributed": lambda s: {"state_dict": named(s, "module._orig_mod."), "name": "run"},
    "compiled tower": lambda s: {k.replace("visual.", "visual._orig_mod.", 1): v for k, v in s.items()},
    "OpenAI's numbers": lambda s: s | {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(49408)},
    "training arguments": lambda s: {"args": argparse.Namespace(lr=1e-3), "model": s},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(WRAPPED))
def test_open_clip_checkpoints_of_trainers(kind, architecture, tmp_path):
    import open_clip

    module = golden.randomise(open_clip.create_model(architecture))
    torch.save(WRAPPED[kind](module.state_dict()), tmp_path / "weights.pt")
    model = load(f"open_clip:{architecture}/{tmp_path / 'weights.pt'}")
    images = golden.pictures(model.tower)
    with torch.inference_mode():
        assert torch.equal(model.tower.encode(images), module.encode_image(images))
        texts = open_clip.get_tokenizer(architecture)(["a cat", "a dog"])
        assert torch.equal(model.encode_texts(["a cat", "a dog"]), module.encode_text(texts))


@pytest.mark.parametrize("kind", [kind for kind in WRAPPED if kind not in ("compiled tower", "OpenAI's numbers")])
def test_timm_checkpoints_of_trainers(kind, tmp_path):
    module = golden.randomise(timm_model("test_vit", num_classes=0))
    torch.save(WRAPPED[kind](module.state_dict()), tmp_path / "weights.pt")
    model = load(f"timm:test_vit/{tmp_path / 'weights.pt'}")
    images = golden.pictures(model.tower)
    with torch.inference_mode():
        assert torch.equal(model.tower.encode(images), module(images))


@pytest.mark.parametrize("kind", ["module.", "model.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("container", [None, "state_dict"])
def test_complete_transformers_checkpoints_with_a_prefix(kind, container, tmp_path):
    from transformers import AutoModel

    folder = clip_folder(tmp_path)
    module = AutoModel.from_pretrained(folder).eval()
    weights = named(module.state_dict(), kind)
    if container is None:
        save_file(weights, folder / "model.safetensors")
    else:
        (folder / "model.safetensors").unlink()
        torch.save({container: weights, "epoch": 1}, folder / "pytorch_model.bin")
    model = load(str(folder))
    images = golden.pictures(model.tower)
    with torch.inference_mode():
        own = module.get_image_features(pixel_values=images)
        assert torch.equal(model.tower.encode(images), getattr(own, "pooler_output", own))


def test_incomplete_transformers_checkpoints_name_what_is_missing_and_what_is_not_theirs(tmp_path):
    from transformers import AutoModel

    folder = clip_folder(tmp_path)
    state = AutoModel.from_pretrained(folder).state_dict()
    other = {"image." + key: value for key, value in state.items() if "vision" in key}
    save_file(other | {key: value for key, value in state.items() if "vision" not in key}, folder / "model.safetensors")
    with pytest.raises(
        HeadwiseError, match=r"lack \d+ .* first is vision_model.*does not know, the first is image.vis"
    ):
        load(str(folder))


def open_clip_error(architecture: str, content, path) -> str:
    torch.save(content, path)
    with pytest.raises(HeadwiseError) as caught:
        load(f"open_clip:{architecture}/{path}")
    return str(caught.value)


def test_open_clip_files_that_are_something_else_say_what_they_are(architecture, tmp_path):
    import open_clip

    file = tmp_path / "weights.pt"
    state = open_clip.create_model(architecture).state_dict()
    visual = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    for content in (visual, named(visual, "visual.")):
        assert "of the image tower alone" in open_clip_error(architecture, content, file)
    hugging_face = {"model.vision_model.encoder.layers.0.self_attn.q_proj.weight": torch.ones(2, 2)}
    assert "names of transformers" in open_clip_error(architecture, hugging_face, file)
    few = {key: value for key, value in state.items() if "resblocks.1" not in key} | {"extra.part": torch.ones(1)}
    said = open_clip_error(architecture, few, file)
    assert "the first is visual.transformer.resblocks.1" in said
    assert "the first is extra.part" in said
    said = open_clip_error(architecture, state | {"text_projection": torch.ones(3, 3)}, file)
    assert "text_projection is (3, 3), not (32, 24)" in said
    assert "its keys are epoch, optimizer" in open_clip_error(architecture, {"epoch": 1, "optimizer": {}}, file)
    both = named(state, "student.") | named(state, "teacher.")
    assert "several whole models, under 'student.', 'teacher.'" in open_clip_error(architecture, both, file)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("form", ["open_clip", "timm", "hf"])
def test_pickles_are_refused_and_run_nothing(form, architecture, tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "weights.pt"
    names = {"open_clip": f"open_clip:{architecture}/{file}", "timm": f"timm:test_vit/{file}"}
    if form == "hf":
        folder = clip_folder(tmp_path / "own")
        (folder / "model.safetensors").unlink()
        names["hf"], file = str(folder), folder / "pytorch_model.bin"
    torch.save({"state_dict": {"a": torch.ones(200_000)}, "evil": Evil(str(trace))}, file)
    with pytest.raises(HeadwiseError, match=r"can run code|eights.?only|weights_only"):
        load(names[form])
    file.write_bytes(pickle.dumps(Evil(str(trace))))
    with pytest.raises(HeadwiseError):
        load(names[form])
    assert not trace.exists()


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_is_named_with_the_way_out(architecture, tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "scripted.pt"))
    for name in (f"open_clip:{architecture}", "timm:test_vit"):
        with pytest.raises(HeadwiseError, match=r"TorchScript archive.*state_dict\(\)"):
            load(f"{name}/{tmp_path / 'scripted.pt'}")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_damaged_files_are_named(content, architecture, tmp_path):
    (tmp_path / "weights.pt").write_bytes(content)
    for name in (f"open_clip:{architecture}", "timm:test_vit"):
        with pytest.raises(HeadwiseError, match=r"weights.pt"):
            load(f"{name}/{tmp_path / 'weights.pt'}")


# ---- what a file does not say


def sized(**vision: object) -> dict:
    return {**OPEN_CLIP, "vision_cfg": {**OPEN_CLIP["vision_cfg"], **vision}}


def test_a_checkpoints_own_resolution_and_context_are_taken(architecture, tmp_path, caplog):
    import open_clip

    config = {**sized(image_size=48), "text_cfg": {**OPEN_CLIP["text_cfg"], "context_length": 16}}
    module = golden.randomise(open_clip.model.CLIP(**json.loads(json.dumps(config))))
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    model = load(f"open_clip:{architecture}/{tmp_path / 'weights.pt'}")
    assert (model.tower.resolution, model.reading.context) == (48, 16)
    assert "48 is used" in caplog.text
    assert "16 are used" in caplog.text
    images = golden.pictures(model.tower)
    assert images.shape[-1] == 48
    with torch.inference_mode():
        assert torch.equal(model.tower.encode(images), module.encode_image(images))
    model.save(tmp_path / "saved")
    again, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'saved'}")
    assert preprocess.transforms[0].size == 48
    with torch.inference_mode():
        assert torch.equal(again.eval().encode_image(images), module.encode_image(images))
    smaller = load(f"open_clip:{architecture}/{tmp_path / 'weights.pt'}", image_size=32)  # open_clip's interpolation
    library = open_clip.create_model(architecture, str(tmp_path / "weights.pt"), force_context_length=16)
    with torch.inference_mode():
        images = golden.pictures(smaller.tower)
        assert torch.equal(smaller.tower.encode(images), library.eval().encode_image(images))


def test_timm_checkpoints_own_resolution_is_taken(tmp_path, caplog):
    module = golden.randomise(timm_model("test_vit", num_classes=0, img_size=96))
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    model = load(f"timm:test_vit/{tmp_path / 'weights.pt'}")
    assert model.tower.resolution == 96
    assert "96 is used" in caplog.text
    images = golden.pictures(model.tower)
    with torch.inference_mode():
        assert torch.equal(model.tower.encode(images), module(images))


@pytest.mark.parametrize("name", ["MobileCLIP-B", "ViT-B-16-SigLIP"])
def test_files_are_preprocessed_as_all_published_weights_of_their_architecture(name):
    """MobileCLIP's and SigLIP's published weights use neither OpenAI's mean nor, MobileCLIP's, its interpolation."""
    import open_clip

    from headwise.towers.open_clip_load import _preprocess
    from headwise.towers.overrides import Overrides

    tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    found, notes = _preprocess(
        "x", name, Path("/nowhere/weights.pt"), open_clip.get_model_config(name), tags, Overrides()
    )
    for key in ("mean", "std", "interpolation", "resize_mode"):
        assert {tuple(tag[key]) if isinstance(tag[key], list) else tag[key] for tag in tags} == {found[key]}
    assert len(notes) == 1
    asked, _ = _preprocess(
        "x", name, Path("/nowhere/weights.pt"), open_clip.get_model_config(name), tags, Overrides(mean=(0.1, 0.2, 0.3))
    )
    assert tuple(asked["mean"]) == (0.1, 0.2, 0.3)
    assert asked["std"] == found["std"]


def test_a_file_of_such_an_architecture_is_loaded_and_merged_with_that_preprocessing(
    tmp_path, monkeypatch, architecture
):
    """As a small architecture whose tags all say MobileCLIP's preprocessing."""
    import open_clip
    from open_clip import pretrained

    from headwise.applied.merge import merge
    from headwise.edits.mask import Mask

    tags = {"one": pretrained._mccfg(), "two": pretrained._mccfg(url="x")}
    monkeypatch.setitem(pretrained._PRETRAINED, architecture, tags)
    module = golden.randomise(open_clip.create_model(architecture))
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    model = load(f"open_clip:{architecture}/{tmp_path / 'weights.pt'}")
    expected = open_clip.image_transform(32, False, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), interpolation="bilinear")
    image = real_pairs()[0][0]
    assert torch.equal(model.preprocess(image), expected(image))
    merged = merge(model, Mask.suppress(model.tower.grid, ["L0.H0"], "zero"), tmp_path / "merged").folder
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{merged}")
    assert torch.equal(preprocess(image), expected(image))


def test_published_weights_that_differ_need_an_explicit_preprocessing(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"")
    with pytest.raises(HeadwiseError, match=r"ViT-L-14 differ in it \(mean: .*Say it with --mean, --std"):
        load(f"open_clip:ViT-L-14/{tmp_path / 'weights.pt'}")


def test_causes_are_kept_whole_and_without_terminal_codes():
    error = RuntimeError(
        "\x1b[31mError(s) in loading:\x1b[0m\n\tMissing key(s): \x1b]8;;x\x07a\x1b]8;;\x07, " + "b" * 900
    )
    said = cause(error)
    assert said.startswith("Error(s) in loading: Missing key(s): a, bbb")
    assert "\x1b" not in said
    assert len(said) < 400
    assert cause(ValueError()) == "ValueError"
