"""Loading by name, wrapping by structure, saving in each library's own format, and what is refused."""

import json
import subprocess
import sys

import golden
import pytest
import torch
from cases import SIGLIP_TEXT, built, hf_model, open_clip_model, timm_model
from processors import clip, real_pairs, without_headwise
from torch import nn

from headwise.edits.heads import Grid
from headwise.errors import HeadwiseError
from headwise.towers import load, tower_of, wrap

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny(tmp_path):
    """A small open_clip architecture under a name of its own."""
    import open_clip
    from open_clip import factory

    path = tmp_path / "headwise-test-load.json"
    path.write_text(json.dumps(TINY))
    open_clip.add_model_config(path)
    yield "headwise-test-load"
    factory._MODEL_CONFIG_PATHS.remove(path)
    del factory._MODEL_CONFIGS["headwise-test-load"]


def changed_model(model) -> torch.Tensor:
    """Suppress a head in the weights, as merging does; returns the embedding of one image."""
    block = model.tower.blocks[0]
    with torch.no_grad():
        block.weights().out[:, : block.head_dim] = 0
        return model.tower.encode(probe(model.tower))


def probe(tower) -> torch.Tensor:
    return golden.pictures(tower, 1)


def test_transformers_folders_load_without_headwise(tmp_path):
    module = golden.randomise(hf_model("CLIP", {"vocab_size": 300}))
    model = wrap(module, clip(tmp_path))
    torch.save((probe(model.tower), changed_model(model)), tmp_path / "expected.pt")
    model.save(tmp_path / "saved")
    without_headwise(
        """
        import sys, torch
        from transformers import AutoModel, AutoProcessor
        images, expected = torch.load(sys.argv[2])
        model = AutoModel.from_pretrained(sys.argv[1]).eval()
        with torch.inference_mode():
            own = model.get_image_features(pixel_values=images)
        assert (getattr(own, "pooler_output", own) - expected).abs().max() < 1e-5
        assert AutoProcessor.from_pretrained(sys.argv[1]).tokenizer(["a cat"])["input_ids"]
        """,
        tmp_path / "saved",
        tmp_path / "expected.pt",
    )
    again = load(str(tmp_path / "saved"))  # a folder needs no prefix
    assert again.tower.weights_hash == model.tower.weights_hash
    assert again.text_hash == model.text_hash


def test_open_clip_folders_load_without_headwise(tmp_path, tiny):
    import open_clip

    module = golden.randomise(open_clip.create_model(tiny))
    model = wrap(module, name=f"open_clip:{tiny}")
    torch.save((probe(model.tower), changed_model(model)), tmp_path / "expected.pt")
    model.save(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    without_headwise(
        """
        import sys, torch, open_clip
        images, expected = torch.load(sys.argv[2])
        name = "local-dir:" + sys.argv[1]
        model, _, preprocess = open_clip.create_model_and_transforms(name, require_pretrained=True)
        with torch.inference_mode():
            assert (model.eval().encode_image(images) - expected).abs().max() < 1e-5
        assert preprocess.transforms[0].size == 32
        assert open_clip.get_tokenizer(name)(["a cat"]).shape == (1, 77)
        """,
        tmp_path / "saved",
        tmp_path / "expected.pt",
    )
    again = load(f"open_clip:local-dir:{tmp_path / 'saved'}")
    assert again.tower.weights_hash == model.tower.weights_hash
    assert again.preprocess_spec == model.preprocess_spec
    assert load(str(tmp_path / "saved")).name == f"open_clip:local-dir:{tmp_path / 'saved'}"
    by_file = load(f"open_clip:{tiny}/{tmp_path / 'saved' / 'open_clip_model.safetensors'}")
    assert by_file.tower.weights_hash == model.tower.weights_hash
    assert by_file.encode_texts is not None
    captions = real_pairs()[1][:3]
    torch.testing.assert_close(by_file.encode_texts(captions), again.encode_texts(captions))


def test_timm_state_dicts_load_without_headwise(tmp_path):
    module = golden.randomise(timm_model("test_vit", num_classes=12))
    model = wrap(module)
    torch.save((probe(model.tower), changed_model(model)), tmp_path / "expected.pt")
    model.save(tmp_path / "saved")
    without_headwise(
        """
        import sys, torch, timm
        images, expected = torch.load(sys.argv[2])
        file = sys.argv[1] + "/model.safetensors"
        model = timm.create_model("test_vit", num_classes=12, checkpoint_path=file).eval()
        with torch.inference_mode():
            features = model.forward_head(model.forward_features(images), pre_logits=True)
            assert (features - expected).abs().max() < 1e-5
        timm.create_model("local-dir:" + sys.argv[1], pretrained=True)
        """,
        tmp_path / "saved",
        tmp_path / "expected.pt",
    )
    again = load(f"timm:local-dir:{tmp_path / 'saved'}")
    assert again.tower.weights_hash == model.tower.weights_hash
    assert load(str(tmp_path / "saved")).tower.weights_hash == model.tower.weights_hash


def test_timm_models_of_classes_become_embeddings(tmp_path):
    from safetensors.torch import save_file

    module = golden.randomise(timm_model("test_vit"))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    model = load(f"timm:test_vit/{tmp_path / 'model.safetensors'}")
    images = probe(model.tower)
    with torch.inference_mode():
        own = module.forward_head(module.forward_features(images), pre_logits=True)
        assert golden.difference(model.tower.encode(images), own) < 1e-6


def test_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    module = golden.randomise(hf_model("CLIP", {"vocab_size": 300, "bos_token_id": 188, "eos_token_id": 189}))
    module.save_pretrained(tmp_path / "clip")
    clip(tmp_path).save_pretrained(tmp_path / "clip")
    sentences = SentenceTransformer(str(tmp_path / "clip"), device="cpu")
    model = wrap(sentences)
    images, captions = real_pairs()
    own = torch.from_numpy(sentences.encode(list(images[:2])))
    with torch.inference_mode():
        ours = model.tower.encode(torch.stack([model.preprocess(image) for image in images[:2]]))
    assert golden.difference(ours, own) < 1e-5
    assert model.encode_texts is not None
    own = torch.from_numpy(sentences.encode(list(captions[:3])))
    torch.testing.assert_close(model.encode_texts(captions[:3]), own, atol=1e-5, rtol=1e-4)
    model.save(tmp_path / "saved")
    again = wrap(SentenceTransformer(str(tmp_path / "saved"), device="cpu"))
    assert again.tower.weights_hash == model.tower.weights_hash


def test_an_unknown_structure_lists_what_was_looked_for():
    with pytest.raises(HeadwiseError, match=r"Looked for: .*transformer.resblocks.*children are: 0, 1"):
        tower_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))


def test_a_part_that_headwise_does_not_know_is_refused():
    with pytest.raises(HeadwiseError, match=r"it has no _pos_embed"):
        tower_of(timm_model("vit_relpos_medium_patch16_cls_224"))
    vit = timm_model("test_vit")
    vit.blocks[0].attn.rel_pos = nn.Linear(2, 2)
    with pytest.raises(HeadwiseError, match=r"does not know: rel_pos"):
        tower_of(vit)
    with pytest.raises(HeadwiseError, match=r"logit_scale"):
        tower_of(open_clip_model("ViT-B-32", {"scaled_cosine_attn": True}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test_convnext", "stem, stages, .*no attention heads"),
        ("test_efficientnet", "no attention heads"),
        ("fastvit_mci0", "attention sits in stages"),
        ("swin_s3_tiny_224", "attention sits in layers"),
    ],
)
def test_towers_without_a_row_of_heads_say_why(name, message):
    with pytest.raises(HeadwiseError, match=message):
        tower_of(timm_model(name))


def test_a_convolutional_open_clip_tower_says_why():
    import open_clip

    config = open_clip.get_model_config("convnext_base")
    vision = {**config["vision_cfg"], "timm_model_name": "test_convnext", "image_size": 64}
    module = open_clip.create_model("convnext_base", vision_cfg=vision, text_cfg=TINY["text_cfg"])
    with pytest.raises(HeadwiseError, match="no attention heads"):
        tower_of(module)


def test_an_attention_pool_on_a_cnn_is_the_grid():
    assert tower_of(built("open_clip RN50")).grid == Grid((), 32)


@pytest.mark.parametrize("pool", ["abs_attn", "rot_attn"])
def test_open_clips_attention_pools_on_timm_cnns(pool):
    vision = {"timm_model_name": "resnet18", "timm_pool": pool, "timm_proj": None, "image_size": 224}
    module = golden.randomise(open_clip_model("convnext_base", vision))
    tower = tower_of(module)
    assert len(tower.grid.layers) == 0
    with torch.inference_mode():
        golden.identity_is_the_own_forward(tower, module.encode_image(golden.pictures(tower)))
    golden.zero_is_zeroing_out_projection_columns(tower)
    golden.live_equals_engine(tower, module)


def test_pooling_that_gives_no_single_vector_is_refused():
    with pytest.raises(HeadwiseError, match="pool_type 'none'"):
        tower_of(open_clip_model("ViT-B-32", {"pool_type": "none"}))
    with pytest.raises(HeadwiseError, match="pool_type 'none'"):
        tower_of(open_clip_model("coca_ViT-B-32", {"pool_type": "none"}))
    with pytest.raises(HeadwiseError, match="global_pool ''"):
        tower_of(timm_model("test_vit", global_pool=""))


def test_siglip_2_of_any_shape_is_refused():
    from transformers import Siglip2Config, Siglip2Model

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    module = Siglip2Model(Siglip2Config(vision_config=small, text_config={**small, "vocab_size": 50}))
    with pytest.raises(HeadwiseError, match="NaFlex"):
        tower_of(module)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai/clip-vit-base-patch32", r"is not a model name(?s:.)*open_clip:ViT-B-32/openai"),
        ("open_clip:", "is not a model name"),
        ("open_clip:ViT-B-33/openai", "no architecture 'ViT-B-33'"),
        ("open_clip:vit-b-32/openai", "Similar: .*ViT-B-32"),
        ("open_clip:ViT-B-32", "no weights.*openai"),
        ("open_clip:ViT-B-32/no-such-tag", "no-such-tag.*laion2b_e16"),
        ("open_clip:ViT-B-32//no/such/file.pt", "/no/such/file.pt"),
        ("open_clip:local-dir:/no/such/folder", "not found"),
        ("timm:vit_no_such", "no model 'vit_no_such'"),
        ("timm:test_vit//no/such/file.safetensors", "no checkpoint file /no/such/file.safetensors"),
        ("hf:/no/such/folder", "config.json"),
    ],
)
def test_names_that_lead_nowhere_say_what_to_write(name, message):
    with pytest.raises(HeadwiseError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("open_clip:ViT-B-32/openai", "open_clip", "open-clip"), ("timm:test_vit", "timm", "timm")],
)
def test_a_missing_library_says_which_extra_to_install(name, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)  # what Python does for a package that is not there
    with pytest.raises(HeadwiseError, match=rf"headwise\[{extra}\]"):
        load(name)


def test_a_missing_tokenizer_library_says_which_extra_to_install(tmp_path, monkeypatch):
    import transformers

    hf_model("Siglip", SIGLIP_TEXT).save_pretrained(tmp_path)

    def needs_sentencepiece(*_args, **_options):  # what transformers raises where it is not installed
        raise ImportError("SiglipTokenizer requires the SentencePiece library but it was not found.")

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", needs_sentencepiece)
    with pytest.raises(HeadwiseError, match=r"headwise\[siglip\]"):
        load(f"hf:{tmp_path}")


def test_importing_the_towers_imports_no_optional_library():
    without = "import headwise.towers, sys; heavy = {'open_clip', 'timm', 'transformers', 'sentence_transformers'}"
    subprocess.run([sys.executable, "-c", f"{without}; assert not heavy & set(sys.modules)"], check=True)


def test_openai_tags_are_loaded_with_their_activation(tmp_path, tiny, monkeypatch):
    """open_clip only warns when a tag was trained with quick-GELU and the architecture does not say so."""
    import open_clip
    from open_clip import pretrained

    module = golden.randomise(open_clip.create_model(tiny, quick_gelu=True))
    file = tmp_path / "weights.pt"
    torch.save(module.state_dict(), file)
    # a tag of the registry that stands for a file here, as a downloaded one does
    monkeypatch.setitem(pretrained._PRETRAINED, tiny, {"openai": {"url": "", "hf_hub": "", "quick_gelu": True}})
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *_args, **_kwargs: str(file))
    model = load(f"open_clip:{tiny}/openai")
    assert type(model.tower.blocks[0].module.mlp.gelu).__name__ == "QuickGELU"
    model.save(tmp_path / "saved")
    again = load(str(tmp_path / "saved"))
    images = probe(model.tower)
    with torch.inference_mode():
        assert torch.equal(again.tower.encode(images), model.tower.encode(images))
