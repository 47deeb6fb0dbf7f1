"""What a user says when loading a model acts as the library's own option does, is recorded, and survives merging."""

import json

import golden
import pytest
import torch
from cases import timm_model
from folders import CLIP_TEXT, clip_folder, family_folder, open_clip_folder
from processors import real_pairs
from test_text_and_pixels import TEXT, pooled

from headwise.applied.merge import merge
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers import load, wrap
from headwise.towers.overrides import Overrides

LOOK = {"mean": (0.3, 0.4, 0.5), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear"}


def pixels_of(preprocess) -> torch.Tensor:
    return torch.stack([preprocess(image) for image in real_pairs()[0][:3]])


def embedded(model, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.tower.encode(pixels)


@pytest.mark.parametrize("family", ["CLIP", "Siglip", "Siglip 2", "ChineseCLIP", "AltCLIP", "MetaClip2"])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_transformers_pictures_and_positions(family, mode, tmp_path):
    from PIL.Image import Resampling
    from transformers import AutoModel, AutoProcessor

    folder = family_folder(family, TEXT[family], tmp_path / "own")
    model = load(str(folder), image_size=48, resize_mode=mode, **LOOK)
    own = AutoProcessor.from_pretrained(folder).image_processor
    size = {"shortest_edge": 48} if mode == "shortest" else {"height": 48, "width": 48}
    expected = own(
        list(real_pairs()[0][:3]),
        return_tensors="pt",
        size=size,
        do_center_crop=mode == "shortest",
        crop_size={"height": 48, "width": 48},
        image_mean=list(LOOK["mean"]),
        image_std=list(LOOK["std"]),
        resample=Resampling.BILINEAR,
    )["pixel_values"]
    pixels = pixels_of(model.preprocess)
    torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)
    with torch.inference_mode():
        library = AutoModel.from_pretrained(folder).eval()
        embeddings = pooled(library.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True))
    assert golden.difference(embedded(model, pixels), embeddings) < 1e-5
    merged = merge(model, Mask.suppress(model.tower.grid, ["L0.H1"], "zero"), tmp_path / "merged").folder
    plain = AutoModel.from_pretrained(merged).eval()
    again = AutoProcessor.from_pretrained(merged).image_processor(list(real_pairs()[0][:3]), return_tensors="pt")
    torch.testing.assert_close(again["pixel_values"], pixels, atol=1e-6, rtol=0)
    with torch.inference_mode():
        ours = load(str(merged)).tower.encode(pixels)
        assert golden.difference(ours, pooled(plain.get_image_features(pixel_values=pixels))) < 1e-6
    assert json.loads((merged / "config.json").read_text())["headwise"]["image_size"] == 48


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_open_clips_pictures_and_positions(mode, tmp_path):
    import open_clip

    folder, _ = open_clip_folder(tmp_path / "own")
    model = load(str(folder), image_size=48, resize_mode=mode, **LOOK)
    library, _, preprocess = open_clip.create_model_and_transforms(
        f"local-dir:{folder}",
        force_image_size=48,
        image_mean=LOOK["mean"],
        image_std=LOOK["std"],
        image_interpolation="bilinear",
        image_resize_mode=mode,
    )
    pixels = pixels_of(preprocess)
    assert torch.equal(pixels_of(model.preprocess), pixels)
    with torch.inference_mode():
        assert golden.difference(embedded(model, pixels), library.eval().encode_image(pixels)) < 1e-6
    merged = merge(model, Mask.suppress(model.tower.grid, ["L0.H1"], "zero"), tmp_path / "merged").folder
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{merged}", require_pretrained=True)
    assert torch.equal(pixels_of(preprocess), pixels)
    with torch.inference_mode():
        assert golden.difference(load(str(merged)).tower.encode(pixels), plain.eval().encode_image(pixels)) < 1e-6


def test_open_clips_tags_take_overrides(tmp_path, monkeypatch):
    import open_clip
    from folders import OPEN_CLIP
    from open_clip import factory, pretrained

    path = tmp_path / "headwise-test-tag.json"
    path.write_text(json.dumps(OPEN_CLIP))
    monkeypatch.setattr(factory, "_MODEL_CONFIG_PATHS", [*factory._MODEL_CONFIG_PATHS, path])
    monkeypatch.setitem(factory._MODEL_CONFIGS, path.stem, OPEN_CLIP)
    torch.save(golden.randomise(open_clip.create_model(path.stem)).state_dict(), tmp_path / "weights.pt")
    # a tag of the registry that stands for a file here, as a downloaded one does
    monkeypatch.setitem(pretrained._PRETRAINED, path.stem, {"mine": {"url": "", "hf_hub": "", "mean": (0.5,) * 3}})
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *_args, **_kwargs: str(tmp_path / "weights.pt"))
    said = {"image_mean": LOOK["mean"], "image_std": LOOK["std"], "image_interpolation": "bilinear"}
    library, _, preprocess = open_clip.create_model_and_transforms(path.stem, "mine", force_image_size=48, **said)
    model = load(f"open_clip:{path.stem}/mine", image_size=48, **LOOK)
    pixels = pixels_of(preprocess)
    assert torch.equal(pixels_of(model.preprocess), pixels)
    with torch.inference_mode():
        assert golden.difference(embedded(model, pixels), library.eval().encode_image(pixels)) < 1e-6
    merged = merge(model, Mask.identity(model.tower.grid), tmp_path / "merged").folder
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{merged}")
    assert torch.equal(pixels_of(preprocess), pixels)
    with torch.inference_mode():
        assert torch.equal(plain.eval().encode_image(pixels), library.encode_image(pixels))


def test_open_clips_towers_of_timm_at_another_size(tmp_path):
    """open_clip resizes them after loading, so a refined model keeps the positions of the own size."""
    import open_clip
    from folders import OPEN_CLIP

    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
    folder, own = open_clip_folder(tmp_path / "own", {**OPEN_CLIP, "vision_cfg": vision})
    model = load(str(folder), image_size=96)
    library, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}", force_image_size=96)
    assert library.visual.trunk.pos_embed.shape[1] == 37
    pixels = pixels_of(preprocess)
    assert torch.equal(pixels_of(model.preprocess), pixels)
    with torch.inference_mode():
        assert golden.difference(embedded(model, pixels), library.eval().encode_image(pixels)) < 1e-6
    merged = merge(model, Mask.suppress(model.tower.grid, ["L3.H1"], "zero"), tmp_path / "merged").folder
    again, plain = load(str(merged)), open_clip.create_model(f"local-dir:{merged}", force_image_size=96).eval()
    with torch.inference_mode():
        assert golden.difference(embedded(again, pixels), plain.encode_image(pixels)) < 1e-6
        assert golden.difference(embedded(again, pixels), embedded(model, pixels)) > 1e-4
    plain, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{merged}")
    assert torch.equal(plain.visual.trunk.pos_embed, own.visual.trunk.pos_embed)
    assert plain.encode_image(pixels_of(preprocess)).shape == (3, 24)
    assert json.loads((merged / "open_clip_config.json").read_text())["headwise"]["image_size"] == 96
    assert load(str(merged), image_size=224).tower.resolution == 224
    wrapped = wrap(library, name=f"open_clip:local-dir:{folder}")
    with pytest.raises(HeadwiseError, match=r"resized to 96 pixels after it was made.*--image-size 96"):
        merge(wrapped, Mask.identity(wrapped.tower.grid), tmp_path / "other")


@pytest.mark.parametrize(("mode", "crop"), [("shortest", "center"), ("longest", "border"), ("squash", "squash")])
def test_timms_pictures_and_positions(mode, crop, tmp_path):
    import timm
    from safetensors.torch import save_file

    module = golden.randomise(timm_model("test_vit", num_classes=0))
    save_file(module.state_dict(), tmp_path / "own.safetensors")
    model = load(f"timm:test_vit/{tmp_path / 'own.safetensors'}", image_size=96, resize_mode=mode, **LOOK)
    module.set_input_size(img_size=96)
    transform = timm.data.create_transform((3, 96, 96), crop_mode=crop, crop_pct=1.0, **LOOK)
    pixels = pixels_of(transform)
    assert torch.equal(pixels_of(model.preprocess), pixels)
    with torch.inference_mode():
        assert golden.difference(embedded(model, pixels), module(pixels)) < 1e-6
    merged = merge(model, Mask.suppress(model.tower.grid, ["L0.H1"], "zero"), tmp_path / "merged").folder
    again = load(f"timm:local-dir:{merged}")
    assert torch.equal(pixels_of(again.preprocess), pixels)
    plain = timm.create_model(f"local-dir:{merged}", pretrained=True).eval()
    with torch.inference_mode():
        assert golden.difference(embedded(again, pixels), plain(pixels)) < 1e-6


def test_transformers_captions_are_cut_where_asked(tmp_path):
    from transformers import AutoModel, AutoProcessor

    folder = clip_folder(tmp_path / "own")
    texts = ["a red bus on a wet road", "a red bus on a dry road", "cat"]
    model = load(str(folder), context_length=10)
    tokens = AutoProcessor.from_pretrained(folder).tokenizer(
        texts, max_length=10, truncation=True, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = pooled(AutoModel.from_pretrained(folder).eval().get_text_features(**tokens))
    torch.testing.assert_close(model.encode_texts(texts), expected, atol=1e-6, rtol=1e-5)
    merged = merge(model, Mask.identity(model.tower.grid), tmp_path / "merged").folder
    assert load(str(merged)).reading.context == 10
    with pytest.raises(HeadwiseError, match="positions for 24 tokens; a context length of 25 is more"):
        load(str(folder), context_length=25)


def test_open_clips_captions_are_cut_where_asked(tmp_path):
    import open_clip

    folder, module = open_clip_folder(tmp_path / "own")
    texts = ["a red bus on a wet road in the rain", "a red bus on a wet road in the sun", "cat"]
    model = load(str(folder), context_length=8)
    tokens = torch.zeros(3, 24, dtype=torch.long)
    tokens[:, :8] = open_clip.get_tokenizer("ViT-B-32")(texts, context_length=8)
    with torch.inference_mode():
        expected = module.encode_text(tokens)
    torch.testing.assert_close(model.encode_texts(texts), expected, atol=1e-6, rtol=1e-5)
    merged = merge(model, Mask.identity(model.tower.grid), tmp_path / "merged").folder
    assert load(str(merged)).reading.context == 8
    with pytest.raises(HeadwiseError, match="positions for 24 tokens; a context length of 25 is more"):
        load(str(folder), context_length=25)


def test_a_processor_of_another_folder(tmp_path):
    folder, other = clip_folder(tmp_path / "own"), clip_folder(tmp_path / "other", text={"vocab_size": 190})
    for file in [path for path in folder.iterdir() if "token" in path.name or "processor" in path.name]:
        file.unlink()
    with pytest.raises(HeadwiseError):
        load(str(folder))
    texts = ["a cat", "a dog"]
    expected = load(str(other)).preprocess_spec
    model = load(str(folder), processor=other)
    assert model.preprocess_spec == expected
    assert model.encode_texts(texts).shape[0] == 2
    with pytest.raises(HeadwiseError, match="is not a folder"):
        load(str(folder), processor=tmp_path / "nowhere")


def odd_processor(folder, side=32, **spec):
    """A folder with an image processor of transformers that does as no model here does by itself."""
    from transformers import CLIPImageProcessor

    size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    values = {"image_mean": [0.3, 0.4, 0.5], "image_std": [0.2, 0.3, 0.4], "resample": 2} | size | spec
    processor = CLIPImageProcessor(**values)
    processor.save_pretrained(folder)
    return processor


def library_model(library, folder):
    """A small model's name for headwise, in a folder that its library wrote."""
    if library == "open_clip":
        return str(open_clip_folder(folder)[0])
    if library == "timm":
        from timm.models import save_for_hf

        module = golden.randomise(timm_model("vit_tiny_patch16_224", img_size=32, num_classes=0))
        save_for_hf(module, str(folder), safe_serialization=True, model_args={"img_size": 32})
        return f"timm:local-dir:{folder}"
    from sentence_transformers import SentenceTransformer

    clip_folder(folder / "clip")
    SentenceTransformer(str(folder / "clip"), device="cpu").save(str(folder / "own"))
    return str(folder / "own")


@pytest.mark.parametrize(
    ("library", "whole"),
    [("open_clip", False), ("open_clip", True), ("timm", False), ("timm", True), ("sentence_transformers", True)],
)
def test_pictures_as_another_folders_processor_makes_them_also_after_merging(library, whole, tmp_path):
    name, folder = library_model(library, tmp_path / "model"), tmp_path / "processor"
    processor = odd_processor(folder)
    if whole:  # with a tokenizer, in transformers' newer file
        from processors import clip

        both = clip(tmp_path)
        both.image_processor = processor
        (folder / "preprocessor_config.json").unlink()
        both.save_pretrained(folder)
        assert not (folder / "preprocessor_config.json").exists()
    expected = processor(list(real_pairs()[0][:3]), return_tensors="pt")["pixel_values"]
    before = pixels_of(load(name).preprocess)
    model = load(name, processor=folder)
    pixels = pixels_of(model.preprocess)
    assert (pixels - expected).abs().mean() < 0.01 < (before - expected).abs().mean()
    assert model.overrides.processor == str(folder)
    merged = merge(model, Mask.identity(model.tower.grid), tmp_path / "merged").folder
    torch.testing.assert_close(pixels_of(load(str(merged)).preprocess), pixels, atol=1e-5, rtol=0)
    given = load(name, processor=folder, mean=(0.0, 0.0, 0.0))  # what is said by itself counts
    shift = (torch.tensor([0.3, 0.4, 0.5]) / torch.tensor([0.2, 0.3, 0.4]))[:, None, None]
    assert (pixels_of(given.preprocess) - expected - shift).abs().mean() < 0.01


@pytest.mark.parametrize("library", ["open_clip", "timm"])
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"side": 48}, r"--image-size too: 32 fits the pictures to the model, 48 the model to the pictures"),
        ({"size": {"shortest_edge": 64}}, "pixels differ by"),
        ({"rescale_factor": 1.0}, "pixels differ by"),
        ({"resample": 0}, "neither bicubic nor bilinear"),
    ],
)
def test_a_processor_that_the_library_cannot_follow_is_refused_with_the_way_out(library, spec, message, tmp_path):
    odd_processor(tmp_path / "processor", **spec)
    with pytest.raises(HeadwiseError, match=message):
        load(library_model(library, tmp_path / "model"), processor=tmp_path / "processor")


def test_a_folder_without_a_processor_says_what_to_give(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(HeadwiseError, match=r"no preprocessor_config.json .*--image-size, --mean"):
        load(library_model("open_clip", tmp_path / "model"), processor=tmp_path / "empty")


@pytest.mark.parametrize(
    ("library", "override", "message"),
    [
        ("hf", {"resize_mode": "longest"}, "resize_mode= .* cannot fill a picture up"),
        ("open_clip", {"processor": "nowhere"}, "is not a folder"),
        ("timm", {"processor": "nowhere"}, "is not a folder"),
        ("timm", {"context_length": 9}, "no text tower"),
    ],
)
def test_what_a_library_cannot_do_is_refused(library, override, message, tmp_path):
    names = {
        "hf": lambda: str(clip_folder(tmp_path / "own")),
        "open_clip": lambda: str(open_clip_folder(tmp_path / "own")[0]),
        "timm": lambda: "timm:test_vit/x",
    }
    with pytest.raises(HeadwiseError, match=message):
        load(names[library](), **override)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.5, 0.5)}, "three channels"),
        ({"mean": ("a", "b", "c")}, "not numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "not above 0"),
        ({"mean": (float("nan"),) * 3}, "finite"),
        ({"interpolation": "cubic"}, "bicubic, bilinear"),
        ({"resize_mode": "crop"}, "a resize mode: shortest"),
        ({"image_size": 10**6}, "from 1 to 4096"),
        ({"image_size": 0}, "from 1 to 4096"),
        ({"context_length": 2}, "3 is the least"),
    ],
)
def test_values_that_no_model_has_are_refused(values, message):
    with pytest.raises(HeadwiseError, match=message):
        Overrides(**values)


def test_every_artefact_of_the_command_line_says_what_was_overridden(tmp_path, run):
    from conftest import write_pairs

    folder, pairs = clip_folder(tmp_path / "own", text=CLIP_TEXT), write_pairs(tmp_path / "data", 24)
    said = ["--image-size", "48", "--mean", "0.5", "--std", "0.5,0.4,0.3", "--context-length", "10"]
    given = {"image_size": 48, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.4, 0.3], "context_length": 10}
    code, out, err = run("evaluate", folder, pairs, "--json", *said)
    assert code == 0, err
    assert json.loads(out)["overrides"] == given
    out = tmp_path / "out"
    code, _, err = run(
        "refine", folder, pairs, "-o", out, *said, "--operator", "zero", "--strategy", "greedy", "--controls", "2",
        "--max-heads", "1",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads((out / "results.json").read_text())["model"]["overrides"] == given
    assert json.loads((out / "head_mask.json").read_text())["provenance"]["overrides"] == given
    assert json.loads((out / "model" / "config.json").read_text())["headwise"] == given
    code, printed, err = run("inspect", folder, "--json", *said)
    assert code == 0, err
    assert (json.loads(printed)["resolution"], json.loads(printed)["context"]) == (48, 10)
    code, _, err = run("inspect", folder, "--interpolation", "nearest")
    assert (code, "bicubic, bilinear" in err) == (1, True)
