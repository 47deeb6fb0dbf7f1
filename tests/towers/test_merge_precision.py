"""A merged folder of open_clip, timm and sentence-transformers is stored as its source is (transformers: test_write)."""

import json
from pathlib import Path

import golden
import pytest
import torch
from cases import hf_model, timm_model
from folders import family_folder
from processors import clip
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_text_and_pixels import TEXT as FAMILIES

from headwise.applied.live import apply
from headwise.applied.merge import MergeReport, merge
from headwise.edits.mask import Mask
from headwise.towers import load, wrap
from headwise.towers.base import Model

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
NATIVE = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
META = {"format": "pt", "note": "mine"}


def recast(file: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The file again with its floating-point tensors in another precision; norms stay in float32."""
    tensors = {
        name: value.to(dtype) if value.is_floating_point() and "norm" not in name and "ln_" not in name else value
        for name, value in load_file(file).items()
    }
    save_file(tensors, file, META)
    return tensors


def open_clip_folder(folder: Path) -> None:
    import open_clip
    from open_clip import factory

    path = folder.parent / "headwise-test-precision.json"
    path.write_text(json.dumps({"embed_dim": 64, "vision_cfg": NATIVE, "text_cfg": TEXT}))
    open_clip.add_model_config(path)
    try:
        wrap(golden.randomise(open_clip.create_model(path.stem)), name=f"open_clip:{path.stem}").save(folder)
    finally:
        factory._MODEL_CONFIG_PATHS.remove(path)
        del factory._MODEL_CONFIGS[path.stem]


def check(model: Model, source: dict[str, torch.Tensor], file: str, folder: Path, row: int = -1) -> MergeReport:
    """Merge with soft gates in the first row of heads and another, and compare the file with the source, tensor by tensor."""
    grid = model.tower.grid
    mask = Mask.suppress(grid, ["L0.H1", grid.head(range(len(grid.rows))[row], 0)], "scale(0.3)")
    images = golden.pictures(model.tower, 2)
    with apply(model, mask), torch.inference_mode():
        masked = model.tower.encode(images.to(model.tower.dtype)).float()
    report = merge(model, mask, folder)
    merged = load_file(report.folder / file)
    assert merged.keys() == source.keys()
    changed = {name for name in source if not torch.equal(merged[name], source[name])}
    assert {name: value.dtype for name, value in merged.items()} == {name: v.dtype for name, v in source.items()}
    assert len(changed) == 2
    for name in changed:
        full = source[name].float().clone()
        layer = next(int(part) for part in name.split(".") if part.isdigit())
        start = 1 if layer == 0 else 0  # the mask is L0.H1 and the last layer's first head
        width = full.shape[1] // grid.rows[0]
        full[:, start * width : (start + 1) * width] *= torch.tensor(0.3)
        assert torch.equal(merged[name], full.to(source[name].dtype)), name
    if (report.folder / "modules.json").is_file():
        again = wrap(type(model.module)(str(report.folder), device="cpu")).tower
    else:
        again = load(str(report.folder)).tower
    with torch.inference_mode():
        found = again.encode(images.to(again.dtype)).float()
    assert (found - masked).abs().max() < 2e-2 * masked.abs().max()
    assert report.relative_difference < 1e-2
    assert 0 < report.rounding < 2**-8
    return report


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_open_clip(tmp_path, dtype):
    open_clip_folder(tmp_path / "base")
    file = tmp_path / "base" / "open_clip_model.safetensors"
    source = recast(file, dtype)
    report = check(load(str(tmp_path / "base")), source, file.name, tmp_path / "merged")
    with safe_open(report.folder / file.name, "pt") as opened:
        assert opened.metadata() == META


def test_open_clips_pytorch_checkpoint(tmp_path):
    """As training scripts write it: in a dictionary, with DistributedDataParallel's prefix, in half precision."""
    open_clip_folder(tmp_path / "base")
    file = tmp_path / "base" / "open_clip_model.safetensors"
    tensors = {name: v.half() if v.is_floating_point() else v for name, v in load_file(file).items()}
    file.unlink()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in tensors.items()}},
        tmp_path / "base" / "open_clip_pytorch_model.bin",
    )
    check(load(str(tmp_path / "base")), tensors, file.name, tmp_path / "merged")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_timm(tmp_path, dtype):
    wrap(golden.randomise(timm_model("test_vit", num_classes=0))).save(tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    source = recast(file, dtype)
    report = check(load(str(tmp_path / "base")), source, file.name, tmp_path / "merged")
    with safe_open(report.folder / file.name, "pt") as opened:
        assert opened.metadata() == META


def test_sentence_transformers(tmp_path):
    """It is given as a live model, in the precision that it was loaded in, and is saved in that."""
    from sentence_transformers import SentenceTransformer

    module = golden.randomise(hf_model("CLIP", {"vocab_size": 300, "bos_token_id": 188, "eos_token_id": 189}))
    wrap(module.half(), clip(tmp_path)).save(tmp_path / "base")
    options = {"dtype": torch.float16}
    half = SentenceTransformer(str(tmp_path / "base"), device="cpu", model_kwargs=options)
    half.save(str(tmp_path / "saved"))
    (file,) = (tmp_path / "saved").rglob("model.safetensors")
    report = check(wrap(half), load_file(file), str(file.relative_to(tmp_path / "saved")), tmp_path / "merged")
    assert report.dtype == "float16"


@pytest.mark.parametrize("family", ["CLIP", "Siglip", "ChineseCLIP", "AltCLIP", "MetaClip2"])
@pytest.mark.parametrize("names", ["as saved", "the module's"])
def test_transformers_families_keep_the_names_of_their_files(family, names, tmp_path):
    """transformers saves some parameters by other names than it has them: AltCLIP's `layers` as `layer`."""
    folder = family_folder(family, FAMILIES[family], tmp_path)
    saved = recast(folder / "model.safetensors", torch.float16)
    if (words := "text_model.embeddings.word_embeddings.weight") in saved:
        saved[words][0] = 0  # what transformers makes of the padding's row on loading
        save_file(saved, folder / "model.safetensors", META)
    if names == "the module's":  # as older versions of transformers saved the image tower
        own = {name.replace(".layers.", ".layer."): name for name in load(str(folder)).module.state_dict()}
        saved = {own.get(k.replace(".layers.", ".layer."), k) if "vision" in k else k: v for k, v in saved.items()}
        save_file(saved, folder / "model.safetensors", META)
    model = load(str(folder))
    report = check(model, saved, "model.safetensors", tmp_path / "merged", row=1)
    assert "float16" in report.dtype
