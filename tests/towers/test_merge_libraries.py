"""A merged model of each library gives, in a process that never imports headwise, what the masked model gives."""

import json

import golden
import numpy as np
import pytest
import torch
from cases import hf_model, timm_model
from processors import clip, real_pairs, without_headwise

from headwise.applied.live import apply
from headwise.applied.merge import merge
from headwise.edits.mask import Mask
from headwise.towers import wrap

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
NATIVE = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
TRUNK = {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160}


def masked_embeddings(model, mask, images) -> torch.Tensor:
    with apply(model, mask), torch.inference_mode():
        return model.tower.encode(images)


@pytest.mark.parametrize("vision", [NATIVE, TRUNK], ids=["native", "timm trunk with attention pooling"])
@pytest.mark.parametrize("operator", ["zero", "uniform"])
def test_open_clip(tmp_path, vision, operator):
    import open_clip
    from open_clip import factory

    path = tmp_path / "headwise-test-merge.json"
    path.write_text(json.dumps({"embed_dim": 64, "vision_cfg": vision, "text_cfg": TEXT}))
    open_clip.add_model_config(path)
    try:
        model = wrap(golden.randomise(open_clip.create_model(path.stem)), name=f"open_clip:{path.stem}")
    finally:
        factory._MODEL_CONFIG_PATHS.remove(path)
        del factory._MODEL_CONFIGS[path.stem]
    grid = model.tower.grid
    mask = Mask.suppress(grid, ["L0.H1", grid.head(len(grid.rows) - 1, 0)], operator)
    images = golden.pictures(model.tower, 2)
    torch.save((images, masked_embeddings(model, mask, images)), tmp_path / "expected.pt")
    report = merge(model, mask, tmp_path / "merged")
    without_headwise(
        """
        import sys, torch, open_clip
        images, expected = torch.load(sys.argv[2])
        model, _, _ = open_clip.create_model_and_transforms("local-dir:" + sys.argv[1], require_pretrained=True)
        with torch.inference_mode():
            assert (model.eval().encode_image(images) - expected).abs().max() < 1e-5
        """,
        report.folder,
        tmp_path / "expected.pt",
    )


def test_timm(tmp_path):
    model = wrap(golden.randomise(timm_model("test_vit", num_classes=0)))
    mask = Mask.suppress(model.tower.grid, ["L0.H1", "L1.H0"], "uniform")
    images = golden.pictures(model.tower, 2)
    torch.save((images, masked_embeddings(model, mask, images)), tmp_path / "expected.pt")
    report = merge(model, mask, tmp_path / "merged")
    without_headwise(
        """
        import sys, torch, timm
        images, expected = torch.load(sys.argv[2])
        with torch.inference_mode():
            model = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
            assert (model(images) - expected).abs().max() < 1e-5
            file = sys.argv[1] + "/model.safetensors"
            model = timm.create_model("test_vit", num_classes=0, checkpoint_path=file).eval()
            assert (model(images) - expected).abs().max() < 1e-5
        """,
        report.folder,
        tmp_path / "expected.pt",
    )


def test_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    module = golden.randomise(hf_model("CLIP", {"vocab_size": 300, "bos_token_id": 188, "eos_token_id": 189}))
    wrap(module, clip(tmp_path)).save(tmp_path / "base")
    model = wrap(SentenceTransformer(str(tmp_path / "base"), device="cpu"))
    mask = Mask.suppress(model.tower.grid, ["L0.H1", "L1.H0"], "scale(0.3)")
    pictures = real_pairs()[0][:2]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    expected = masked_embeddings(model, mask, torch.stack([model.preprocess(picture) for picture in pictures]))
    np.save(tmp_path / "expected.npy", expected.numpy())
    report = merge(model, mask, tmp_path / "merged", card="the card")
    without_headwise(
        """
        import sys, numpy
        from PIL import Image
        from sentence_transformers import SentenceTransformer
        model = SentenceTransformer(sys.argv[1] + "/merged", device="cpu")
        pictures = [Image.open(sys.argv[1] + f"/{i}.png").convert("RGB") for i in (0, 1)]
        expected = numpy.load(sys.argv[1] + "/expected.npy")
        assert abs(model.encode(pictures) - expected).max() < 1e-5
        """,
        tmp_path,
    )
    assert (report.folder / "README.md").read_text() == "the card"
