"""Texts and pictures go through the library's own code: tokens, pixels and embeddings are those of direct use."""

import golden
import pytest
import torch
from cases import SIGLIP_TEXT, hf_model
from processors import CHINESE, PROCESSORS, real_pairs

from headwise.edits.mask import Mask
from headwise.evaluation import engine
from headwise.towers import hf, load, wrap

TEXT = {
    "CLIP": {"vocab_size": 300, "bos_token_id": 188, "eos_token_id": 189},
    "Siglip": SIGLIP_TEXT,
    "Siglip 2": SIGLIP_TEXT,
    "ChineseCLIP": {"vocab_size": 400, "max_position_embeddings": 512},
    "AltCLIP": {"vocab_size": 300, "project_dim": 64, "max_position_embeddings": 66, "pad_token_id": 1},
    "MetaClip2": {"vocab_size": 300, "eos_token_id": 2},
}
# how each library's documentation calls its processor, and the longest text that the model takes
DIRECT: dict[str, dict] = {
    "CLIP": {"padding": True, "truncation": True, "max_length": 77},
    "Siglip": {"padding": "max_length", "truncation": True, "max_length": 64},
    "Siglip 2": {"padding": "max_length", "truncation": True, "max_length": 64},
    "ChineseCLIP": {"padding": True, "truncation": True, "max_length": 52},
    "AltCLIP": {"padding": True, "truncation": True, "max_length": 64},
    "MetaClip2": {"padding": True, "truncation": True, "max_length": 77},
}
families = pytest.mark.parametrize("family", list(PROCESSORS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each family, as `save_pretrained` writes it, made when first asked for."""
    made = {}

    def folder(family):
        if family not in made:
            path = tmp_path_factory.mktemp(family.replace(" ", ""))
            module = golden.randomise(hf_model(family.removesuffix(" 2"), TEXT[family]))
            processor = PROCESSORS[family](path)
            module.save_pretrained(path / "model")
            processor.save_pretrained(path / "model")
            made[family] = path / "model"
        return made[family]

    return folder


def direct(folder):
    """The library used by itself."""
    from transformers import AutoModel, AutoProcessor

    return AutoModel.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def pooled(output):
    return getattr(output, "pooler_output", output)


@families
def test_texts_are_tokenised_and_embedded_as_by_the_library(family, folders):
    texts = list(CHINESE if family == "ChineseCLIP" else real_pairs()[1])
    module, processor = direct(folders(family))
    # SigLIP 2 was trained on lower-cased text; its tokenizer leaves that to its user
    own_texts = [text.lower() for text in texts] if family == "Siglip 2" else texts
    own = dict(processor(text=own_texts, return_tensors="pt", **DIRECT[family]))
    ours = hf.tokenize(module, processor.tokenizer, texts)
    assert ours.keys() == own.keys()
    for key in own:
        assert torch.equal(ours[key], own[key]), key
    if family != "ChineseCLIP":  # the longest text was cut
        assert own["input_ids"].shape[1] == DIRECT[family]["max_length"]
    assert len({tuple(row) for row in own["input_ids"].tolist()}) == len(set(own_texts))  # no two texts became one
    with torch.inference_mode():
        expected = pooled(module.get_text_features(**own))
    model = load(f"hf:{folders(family)}")
    assert model.encode_texts is not None
    torch.testing.assert_close(model.encode_texts(texts), expected, atol=1e-6, rtol=1e-5)
    assert model.loss == ("sigmoid" if family.startswith("Siglip") else "softmax")
    assert model.logit_scale == pytest.approx(float(module.logit_scale.detach().exp()))


@families
def test_pictures_are_preprocessed_and_embedded_as_by_the_library(family, folders):
    images = list(real_pairs()[0][:4])
    module, processor = direct(folders(family))
    own = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = pooled(module.get_image_features(pixel_values=own))
    model = load(f"hf:{folders(family)}")
    pixels = torch.stack([model.preprocess(image) for image in images])
    assert torch.equal(pixels, own)
    identity = Mask.identity(model.tower.grid)
    ours = dict(engine.embed(model.tower, pixels, [identity], golden.PLAN))[identity]
    assert golden.difference(ours, expected) < 1e-5


def test_chinese_texts_are_cut_at_the_context_of_the_training(folders):
    module, processor = direct(folders("ChineseCLIP"))
    tokens = hf.tokenize(module, processor.tokenizer, ["猫" * 100])
    assert tokens["input_ids"].shape == (1, 52)


@pytest.fixture
def tiny_open_clip():
    """A small architecture under a name of its own, as open_clip's users add theirs."""
    import json
    import tempfile
    from pathlib import Path

    import open_clip
    from open_clip import factory

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "headwise-test-tiny.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
        yield "headwise-test-tiny"
    factory._MODEL_CONFIG_PATHS.remove(path)
    factory._rescan_model_configs()


def test_open_clips_texts_and_pictures(tiny_open_clip):
    import open_clip

    images, captions = real_pairs()
    module, _, preprocess = open_clip.create_model_and_transforms(tiny_open_clip)
    golden.randomise(module)
    tokenizer = open_clip.get_tokenizer(tiny_open_clip)
    with torch.inference_mode():
        texts = module.encode_text(tokenizer(list(captions)))
        pixels = torch.stack([preprocess(image) for image in images[:4]])
        own = module.encode_image(pixels)
    model = wrap(module, name=f"open_clip:{tiny_open_clip}")
    assert model.encode_texts is not None
    torch.testing.assert_close(model.encode_texts(captions), texts, atol=1e-6, rtol=1e-5)
    assert torch.equal(torch.stack([model.preprocess(image) for image in images[:4]]), pixels)
    identity = Mask.identity(model.tower.grid)
    ours = dict(engine.embed(model.tower, pixels, [identity], golden.PLAN))[identity]
    assert golden.difference(ours, own) < 1e-5


def test_timms_pictures_and_a_text_tower_of_the_users():
    import timm

    module = golden.randomise(timm.create_model("test_vit", num_classes=12))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)
    model = wrap(module)
    images = real_pairs()[0][:3]
    pixels = torch.stack([model.preprocess(image) for image in images])
    assert torch.equal(pixels, torch.stack([transform(image) for image in images]))
    assert model.encode_texts is None

    def encode_texts(texts):
        return torch.ones(len(texts), 12)

    with_text = wrap(module, (transform, encode_texts))
    assert with_text.encode_texts is not None
    assert with_text.encode_texts(["a", "b"]).shape == (2, 12)
