"""What a merge writes: the precision, metadata and files of the source, and no other tensor than the mask's changed."""

import copy
import hashlib
import json

import pytest
import torch
from conftest import small_clip
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_merge import folding_masks, model, processor  # noqa: F401  # model is a fixture
from torch import nn

from headwise.applied import live
from headwise.applied.fold import folded
from headwise.applied.merge import merge
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers import load, wrap

OUT = "vision_model.encoder.layers.{}.self_attn.out_proj.weight"


def hashes(folder) -> dict[str, tuple[str, str, tuple[int, ...]]]:
    """Tensor → the hash of its bytes, its dtype and its shape, over all safetensors files of a folder."""
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):
        for name, tensor in load_file(file).items():
            raw = tensor.contiguous().view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)
            digest = hashlib.sha256(raw.numpy().tobytes()).hexdigest()
            found[name] = (digest, str(tensor.dtype), tuple(tensor.shape))
    return found


def metadata(file) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def source(model, folder, dtype, *, mixed=False, shards=1):  # noqa: F811
    """A folder as somebody would have it: another precision, metadata of its own, an old buffer, an old dtype key."""
    model.save(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
    if mixed:  # norms and projections in float32, as some trainers leave them
        tensors = {k: v.float() if "norm" in k or "projection" in k else v for k, v in tensors.items()}
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # what older transformers saved
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]
    config["torch_dtype"] = str(dtype).removeprefix("torch.")
    config["vision_config"].pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt", "trained_by": "me"})
        return folder
    names, weight_map = sorted(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        weight_map |= dict.fromkeys(part, file)
        save_file(part, folder / file, {"format": "pt", "shard": str(i)})
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", ["one file", "mixed", "sharded"])
def test_only_the_masks_tensors_change_and_all_keep_their_precision(model, images, tmp_path, dtype, layout):  # noqa: F811
    base = source(model, tmp_path / "base", dtype, mixed=layout == "mixed", shards=3 if layout == "sharded" else 1)
    ready = load(str(base))
    assert ready.tower.dtype == torch.float32
    mask = folding_masks(model.tower.grid)["soft mean"]
    with live.apply(ready, mask), torch.no_grad():
        masked = ready.tower.encode(images)
    report = merge(ready, mask, tmp_path / "merged")

    before, after = hashes(base), hashes(report.folder)
    layers = [row for row, edits in enumerate(mask.table) if not all(edit.keeps for edit in edits)]
    touched = {OUT.format(row).replace("weight", end) for row in layers for end in ("weight", "bias")}
    assert {name for name in before if after[name] != before[name]} == touched
    assert before.keys() == after.keys()
    assert all(after[name][1:] == before[name][1:] for name in before)
    assert {p.name for p in base.glob("model*")} == {p.name for p in report.folder.glob("model*")}
    for file in base.glob("*.safetensors"):
        assert metadata(report.folder / file.name) == metadata(file)
        size = (report.folder / file.name).stat().st_size
        assert abs(size - file.stat().st_size) < 1000
    config = json.loads((report.folder / "config.json").read_text())
    assert config["torch_dtype"] == str(dtype).removeprefix("torch.")
    assert "dtype" not in config

    # each value is the float32 fold of what the source holds, cast once
    stored = {name: tensor for file in base.glob("*.safetensors") for name, tensor in load_file(file).items()}
    merged = {name: tensor for file in report.folder.glob("*.safetensors") for name, tensor in load_file(file).items()}
    largest = 0.0
    for row in layers:
        name = OUT.format(row)
        gates = torch.tensor([edit.gate for edit in mask.table[row]]).repeat_interleave(16)
        full = stored[name].float() * gates
        assert torch.equal(merged[name], full.to(dtype))
        largest = max(largest, float((merged[name].float() - full).abs().max() / full.abs().max()))
    assert report.rounding >= largest * 0.999
    assert (report.rounding == 0) == (dtype == torch.float32)
    assert report.dtype.split(", ")[0] == str(dtype).removeprefix("torch.")
    with torch.no_grad():
        again = load(str(report.folder)).tower.encode(images)
    difference = (again - masked).abs().max() / masked.abs().max()
    assert difference < {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]


def test_a_pytorch_checkpoint_keeps_its_precision(model, tmp_path):  # noqa: F811
    model.save(tmp_path / "base")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "model.safetensors").unlink()
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in tensors.items()},
               tmp_path / "base" / "pytorch_model.bin")  # fmt: skip
    report = merge(load(str(tmp_path / "base")), folding_masks(model.tower.grid)["zero"], tmp_path / "merged")
    assert {kind for _, kind, _ in hashes(report.folder).values()} == {"torch.float16"}


def test_weights_that_were_trained_since_they_were_read_are_not_rounded(model, tmp_path):  # noqa: F811
    """Precision is kept where it loses nothing; what is new in float32 stays so."""
    ready = load(str(source(model, tmp_path / "base", torch.float16)))
    name = "vision_model.post_layernorm.weight"
    with torch.no_grad():
        dict(ready.module.named_parameters())[name].add_(1e-6)
    mask = folding_masks(model.tower.grid)["zero"]
    report = merge(ready, mask, tmp_path / "merged", check_weights=False)
    merged = load_file(report.folder / "model.safetensors")
    assert merged[name].dtype == torch.float32
    assert torch.equal(merged[name], dict(ready.module.named_parameters())[name])
    assert report.dtype == "float16, float32"


def test_the_demos_merged_model_is_as_large_as_the_demos_model(tmp_path):
    from headwise.demo import model_folder

    ready = load("demo")
    report = merge(ready, Mask.suppress(ready.tower.grid, ["L5.H0", "L2.H3"], "scale(0.3)"), tmp_path / "merged")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (model_folder(), report.folder)]
    assert abs(sizes[0] - sizes[1]) < 1000
    assert report.dtype == "float16"
    assert 0 < report.rounding < 2**-10


def test_the_live_model_is_never_changed_while_a_merge_runs(model, tmp_path):  # noqa: F811
    """Another thread may be using it: its weights are read, at every moment what they were."""
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    seen = []

    def save(folder):
        seen.append(all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items()))
        model.save(folder)

    from dataclasses import replace

    merge(replace(model, save=save), folding_masks(model.tower.grid)["every head"], tmp_path / "merged")
    assert seen == [True]


# ---- what cannot be folded is said


def test_a_tied_out_projection_is_an_error(model, tmp_path):  # noqa: F811
    tied = wrap(copy.deepcopy(model.module), processor(), name="hf:tied")
    layers = tied.module.vision_model.encoder.layers
    layers[2].self_attn.out_proj.weight = layers[0].self_attn.out_proj.weight
    mask = Mask.suppress(tied.tower.grid, ["L0.H1"])
    with pytest.raises(HeadwiseError, match=r"L0.H1.*tied.*layers\.0.*layers\.2"):
        merge(tied, mask, tmp_path / "merged")
    with pytest.raises(HeadwiseError, match="tied"), folded(tied.tower, mask):
        pass
    assert list(tmp_path.iterdir()) == []
    layers[2].self_attn.out_proj.weight = nn.Parameter(torch.zeros(1))
    layers[2].self_attn.out_proj.weight.data = layers[0].self_attn.out_proj.weight.data  # two parameters, one memory
    with pytest.raises(HeadwiseError, match="tied"):
        merge(tied, mask, tmp_path / "merged")
    with folded(tied.tower, Mask.suppress(tied.tower.grid, ["L1.H1"])):  # what is tied is not touched
        pass
    with pytest.raises(HeadwiseError, match=r"cannot be saved by its own library.*shared tensors"):
        merge(tied, Mask.suppress(tied.tower.grid, ["L1.H1"]), tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_adapters_are_refused_with_the_way_out(model, tmp_path):  # noqa: F811
    from peft import LoraConfig, inject_adapter_in_model

    tuned = copy.deepcopy(model.module)
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False), tuned)
    with pytest.raises(HeadwiseError, match="merge_and_unload"):
        merge(wrap(tuned, processor()), Mask.suppress(model.tower.grid, ["L0.H1"]), tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_computed_weights_are_refused(model, tmp_path):  # noqa: F811
    module = copy.deepcopy(model.module)
    torch.nn.utils.parametrizations.orthogonal(module.vision_model.encoder.layers[0].self_attn.out_proj)
    with pytest.raises(HeadwiseError, match="parametriz"):
        merge(wrap(module, processor()), Mask.suppress(model.tower.grid, ["L0.H1"]), tmp_path / "merged")
    module = copy.deepcopy(model.module)
    torch.nn.utils.parametrizations.orthogonal(module.vision_model.encoder.layers[0].self_attn.out_proj)
    with (
        pytest.raises(HeadwiseError, match="computed"),
        folded(wrap(module, processor()).tower, Mask.suppress(model.tower.grid, ["L0.H1"])),
    ):
        pass


def test_weights_that_are_not_there_are_refused(model):  # noqa: F811
    mask = Mask.suppress(model.tower.grid, ["L0.H1"])
    module = small_clip()
    module.vision_model.encoder.layers[1].to("meta")
    with pytest.raises(HeadwiseError, match=r"'meta'.*device_map"), live.apply(module, mask):
        pass
    module = small_clip()
    linear = module.vision_model.encoder.layers[1].mlp.fc1
    linear.weight = nn.Parameter(linear.weight.data.to(torch.int8), requires_grad=False)
    with pytest.raises(HeadwiseError, match=r"int8.*quantized"), live.apply(module, mask):
        pass


def test_two_folds_into_the_same_weights_are_refused_and_others_may_overlap(model):  # noqa: F811
    tower = model.tower
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    first, second = (Mask.suppress(tower.grid, [head]) for head in ("L0.H1", "L1.H1"))
    outer, inner = folded(tower, first), folded(tower, second)
    outer.__enter__()
    with pytest.raises(HeadwiseError, match="already"), folded(tower, Mask.suppress(tower.grid, ["L0.H2"])):
        pass
    inner.__enter__()
    outer.__exit__(None, None, None)  # they end in any order
    inner.__exit__(None, None, None)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    with folded(tower, first):
        pass
