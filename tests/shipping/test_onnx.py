"""ONNX of models of every library, of masks that do not fold, in every precision."""

from __future__ import annotations

import pytest
import torch

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.shipping import onnx as onnx_export
from headwise.shipping.onnx import write_onnx
from headwise.towers import load, wrap

TEXTS = ["a cat", "a dog on a red table", "two birds"]


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    import headwise
    from headwise.data.cache import pixels
    from headwise.demo import pairs_file

    pairs = headwise.read(str(pairs_file())).subset(range(0, 400, 40))
    return pixels(pairs, headwise.load("demo"))[:10]


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def demo():
    return load("demo")


@pytest.mark.parametrize("precision", ["float16"])
def test_a_mask_that_does_not_fold_is_graph(demo, pictures, tmp_path, precision):
    mask = Mask.parse(demo.tower.grid, "L0.H1=cls, L5.H2=cls(0.5)")
    report = write_onnx(demo, mask, tmp_path, precision=precision, images=pictures, texts=TEXTS)
    assert report.mask == "graph"
    assert report.image_cosine >= 0.999


def test_what_differs_is_not_kept(demo, pictures, tmp_path, monkeypatch):
    """An exporter that is off by a little is noticed: the reference is the live model, not the exported graph."""
    monkeypatch.setattr(onnx_export, "_tower", lambda model, mask, prune: _other(model))
    with pytest.raises(HeadwiseError, match="differs from the live model"):
        write_onnx(demo, Mask.identity(demo.tower.grid), tmp_path, images=pictures, texts=())


def _other(model):
    from headwise.shipping.edited import folded_copy

    return folded_copy(model.tower, Mask.parse(model.tower.grid, "L1.H1=zero")), None, "none", ""


def test_open_clip_full_size(tmp_path, noise):
    """ViT-B/32 with random weights; its text tower has a fixed length. Takes about 20 s: full size."""
    open_clip = pytest.importorskip("open_clip")
    module = open_clip.create_model("ViT-B-32", pretrained=None).eval()
    model = wrap(module, name="open_clip:ViT-B-32")
    mask = Mask.parse(model.tower.grid, ", ".join(f"L3.H{i}=zero" for i in range(12)) + ", L7.H1=zero")
    report = write_onnx(model, mask, tmp_path, images=noise, texts=TEXTS)
    assert report.heads.startswith("13 heads cut out, 1 of 12 blocks without attention")
    from headwise.sums import write_sums

    write_sums(tmp_path)
    again = load(str(tmp_path))
    found = again.encode_texts(TEXTS)
    assert torch.cosine_similarity(found, model.encode_texts(TEXTS)).min() > 0.9999


def test_timm_alone(tmp_path):
    """No text tower: image.onnx alone, and timm's own preprocessing in the opened folder."""
    timm = pytest.importorskip("timm")
    module = timm.create_model("vit_base_patch32_clip_224", pretrained=False, depth=2).eval()
    model = wrap(module)
    report = write_onnx(
        model, Mask.parse(model.tower.grid, "L0.H0=zero"), tmp_path, images=torch.randn(3, 3, 224, 224), texts=()
    )
    assert report.text_cosine is None
    from headwise.sums import write_sums

    write_sums(tmp_path)
    again = load(str(tmp_path))
    assert again.encode_texts is None
    x = torch.randn(2, 3, 224, 224)
    assert again.tower.encode(x).shape == model.tower.encode(x).shape
