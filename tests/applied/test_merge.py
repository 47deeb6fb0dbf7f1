"""A merged model gives what the masked live model gives, and what cannot be merged is refused."""

import copy
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import randomise

from headwise.applied import fold, live
from headwise.applied.fold import folded
from headwise.applied.merge import merge
from headwise.edits.arrays import Array
from headwise.edits.edit import KINDS, Edit, Letter
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation import engine
from headwise.evaluation.layout import Plan
from headwise.towers import load, wrap
from headwise.towers.blocks import HeadWeights

HEADS = ["L0.H1", "L0.H2", "L2.H3"]


def with_means(mask: Mask, seed: int = 0) -> Mask:
    """The mask with random constants."""
    generator = torch.Generator().manual_seed(seed)
    return mask.bound(lambda head: torch.randn(16, generator=generator))


def arrays_of(name: str, *arrays: torch.Tensor) -> Letter:
    """A letter with random arrays."""
    names = [one for one, _ in KINDS[name].arrays]
    return Letter(name, None, tuple(zip(names, map(Array.of, arrays), strict=True)))


def test_weights_are_given_back_where_copies_do_not_fit(tower, monkeypatch):
    """A failure between claiming the weights and changing them."""
    mask, made = Mask.suppress(tower.grid, HEADS), fold.changes
    before = [parameter.clone() for parameter in tower.parts.parameters()]
    calls = []

    def short(*given):
        calls.append(given)
        if len(calls) == 2:
            raise MemoryError
        return made(*given)

    monkeypatch.setattr(fold, "changes", short)
    with pytest.raises(MemoryError), folded(tower, mask):
        pass
    with folded(tower, mask):
        pass
    assert all(map(torch.equal, before, tower.parts.parameters()))


def folding_masks(grid) -> dict[str, Mask]:
    generator = torch.Generator().manual_seed(3)
    axes = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
    shift = arrays_of("shift", torch.randn(16, generator=generator))
    spectral = arrays_of("spectral", axes, torch.rand(16, generator=generator), torch.randn(16, generator=generator))
    soft = Mask.suppress(grid, HEADS, "scale(0.3)") | Mask.suppress(grid, ["L1.H0"])
    soft_mean = Mask.suppress(grid, HEADS, "mean(0.3)") | Mask.suppress(grid, ["L1.H0"], "mean")
    return {
        "zero": Mask.suppress(grid, HEADS),
        "soft zero": soft,
        "mean": with_means(Mask.suppress(grid, HEADS, "mean")),
        "soft mean": with_means(soft_mean),
        "uniform": Mask.suppress(grid, HEADS, "uniform"),
        "amplified": Mask.suppress(grid, HEADS, "scale(1.7)"),
        "temperature": Mask.suppress(grid, HEADS, "temperature(1.6)"),
        "keys, queries": Mask.suppress(grid, HEADS, "keys") | Mask.suppress(grid, ["L0.H2", "L1.H1"], "queries"),
        "shift": Mask.suppress(grid, HEADS, Edit(value=shift)),
        "spectral": Mask.suppress(grid, HEADS, Edit(value=spectral)),
        "mixed": Mask.of(grid, {"L0.H1": Edit.parse("temperature(0.5)+scale(0.8)"), "L0.H2": Edit.parse("zero")})
        | Mask.of(grid, {"L1.H3": Edit(Letter("keys"), spectral), "L2.H0": Edit(Letter("uniform"), shift)}),
        "every head": Mask.suppress(grid, list(grid)),
    }


def picture_processor():
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def processor():
    """A processor with a tokenizer that knows the letters."""
    from transformers import CLIPProcessor, CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    return CLIPProcessor(image_processor=picture_processor(), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def model():
    """A small whole CLIP, both towers, with random weights."""
    from transformers import CLIPConfig, CLIPModel

    shared = {"intermediate_size": 64, "projection_dim": 24}
    config = CLIPConfig(
        text_config=shared
        | {"vocab_size": 54, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        | {"max_position_embeddings": 16, "bos_token_id": 52, "eos_token_id": 53},
        vision_config=shared
        | {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    return wrap(randomise(CLIPModel(config)), processor(), name="hf:tiny/clip")


NAMES = [
    "zero", "soft zero", "mean", "soft mean", "uniform", "amplified", "temperature", "keys, queries", "shift",
    "spectral", "mixed", "every head",
]  # fmt: skip


def state(module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def embed(tower, images):
    return tower.encode(images.to(tower.dtype)).float()


@pytest.mark.parametrize("name", NAMES)
def test_folded_weights_equal_the_live_mask_and_are_restored(tower, clip_module, images, name):
    mask, before = folding_masks(tower.grid)[name], state(clip_module)
    plain = embed(tower, images)
    with live.apply(clip_module, mask):
        masked = embed(tower, images)
    with folded(tower, mask):
        assert (embed(tower, images) - masked).abs().max() < 1e-5
        assert not same(before, state(clip_module))
    assert same(before, state(clip_module))
    assert torch.equal(embed(tower, images), plain)


def test_weights_are_restored_after_an_exception_and_the_hash_stays_that_of_the_unchanged(clip_module):
    from headwise.towers import tower_of

    tower, before = tower_of(clip_module), state(clip_module)

    def fail():
        assert tower.weights_hash
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), folded(tower, folding_masks(tower.grid)["soft mean"]):
        fail()
    assert same(before, state(clip_module))
    assert tower.weights_hash == tower_of(clip_module).weights_hash


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_folds_in_float32_and_restores(tower, dtype):
    half = tower.cast("cpu", dtype)
    mask, before = folding_masks(tower.grid)["soft mean"], state(half.parts)
    weights = half.blocks[1].weights()
    with folded(half, mask):
        gates = torch.tensor([0.0, 1, 1, 1]).repeat_interleave(16)
        old = before["0.encoder.layers.1.self_attn.out_proj.weight"].float()
        constants = torch.zeros(64)
        constants[:16] = torch.tensor(mask.edit("L1.H0").value.array("constant").numpy())
        bias = before["0.encoder.layers.1.self_attn.out_proj.bias"].float() + old @ constants
        assert torch.equal(weights.out, (old * gates).to(dtype))
        assert torch.equal(weights.out_bias, bias.to(dtype))
    assert same(before, state(half.parts))


def test_means_may_come_from_the_engine(tower, clip_module, images):
    means = engine.head_means(tower, images, Plan())
    mask = Mask.suppress(tower.grid, HEADS, "mean")
    with live.apply(clip_module, engine.with_means(mask, means)):
        masked = embed(tower, images)
    with folded(tower, mask, means):
        assert (embed(tower, images) - masked).abs().max() < 1e-5
    with pytest.raises(HeadwiseError, match=r"with_means"), folded(tower, mask):
        pass


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (lambda grid: Mask.suppress(grid, HEADS, "cls"), r"L0\.H1=cls does not fold.*zero, mean, .*uniform"),
        (lambda grid: Mask.suppress(grid, HEADS, "self"), r"L0\.H1=self does not fold.*zero, mean, .*uniform"),
        (lambda grid: Mask.suppress(grid, HEADS, "cls_row"), r"L0\.H1=cls_row does not fold.*zero, mean, .*uniform"),
        (
            lambda grid: Mask.suppress(grid, ["L1.H2"], "uniform(0.5)"),
            r"L1\.H2=uniform\(0\.5\) does not fold.*temperature",
        ),
        (lambda grid: Mask.suppress(grid, HEADS).with_provenance(weights_hash="another"), "weights another"),
        (lambda grid: Mask.suppress(replace(grid, layers=(4, 4)), ["L0.H1"]), "this model has 3 layers x 4 heads"),
    ],
)
def test_what_does_not_fold_is_refused_and_changes_nothing(model, tmp_path, mask, says):
    before = state(model.module)
    mask = mask(model.tower.grid)
    with pytest.raises(HeadwiseError, match=says), folded(model.tower, mask):
        pass
    with pytest.raises(HeadwiseError, match=says):
        merge(model, mask, tmp_path / "merged")
    assert same(before, state(model.module))
    assert list(tmp_path.iterdir()) == []


def test_a_block_without_bias_or_own_queries_is_refused(tower):
    def lacking(block, **changes):
        block = copy.copy(block)
        weights = HeadWeights(**{**vars(block.weights()), **changes})
        block.weights = lambda: weights
        return block

    bare = replace(tower, blocks=tuple(lacking(b, out_bias=None, query=None, query_bias=None) for b in tower.blocks))
    masks = folding_masks(tower.grid)
    with pytest.raises(HeadwiseError, match=r"L0\.H1=mean does not fold.*no bias"), folded(bare, masks["mean"]):
        pass
    with pytest.raises(HeadwiseError, match="no projection of queries"), folded(bare, masks["uniform"]):
        pass
    with folded(bare, masks["zero"]):
        pass


# ---- merged folders

PLAIN = """
import sys, torch
from transformers import CLIPModel, CLIPProcessor
images, out, *folders = sys.argv[1:]
images, found = torch.load(images), {}
for folder in folders:
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    texts = processor(text=["a cat", "dog"], return_tensors="pt", padding=True)
    with torch.no_grad():
        e = model.get_image_features(pixel_values=images).pooler_output
        found[folder] = e, model.get_text_features(**texts).pooler_output
assert not any(name.startswith("headwise") for name in sys.modules)
torch.save(found, out)
"""


def run_python(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_plain_transformers_loads_merged_models(model, images, tmp_path):
    """In a process that never imports headwise."""
    masks = folding_masks(model.tower.grid) | {"identity": Mask.identity(model.tower.grid)}
    before, masked, folders = state(model.module), {}, {}
    for name, mask in masks.items():
        with live.apply(model, mask):
            masked[name] = embed(model.tower, images)
        report = merge(model, mask, tmp_path / "deep" / name, pixels=images, card="the card")
        folders[name] = report.folder
        assert (report.dtype, report.images) == ("float32", 8 + len(images))
        assert report.largest_difference == 0.0 if name == "identity" else report.largest_difference < 1e-5
        assert Mask.from_pretrained(report.folder) == mask
        assert (report.folder / "README.md").read_text() == "the card"
        modes = {p.stat().st_mode & 0o777 for p in report.folder.iterdir()}
        assert len(modes) == 1  # the weights are as readable as the rest
    assert same(before, state(model.module))
    assert {p.name for p in (tmp_path / "deep").iterdir()} == set(masks)

    torch.save(images, tmp_path / "images.pt")
    run_python(PLAIN, tmp_path / "images.pt", tmp_path / "out.pt", *folders.values())
    found, texts = torch.load(tmp_path / "out.pt"), model.encode_texts(["a cat", "dog"])
    for name, folder in folders.items():
        merged, merged_texts = found[str(folder)]
        assert (merged - masked[name]).abs().max() < 1e-5, name
        assert (merged_texts - texts).abs().max() < 1e-5
    assert torch.equal(found[str(folders["identity"])][0], embed(model.tower, images))


def test_identity_merges_bit_for_bit(model, tmp_path):
    report = merge(model, Mask.identity(model.tower.grid), tmp_path / "merged")
    again = load(f"hf:{report.folder}")
    assert report.largest_difference == 0.0
    assert again.tower.weights_hash == model.tower.weights_hash
    assert again.text_hash == model.text_hash


def test_a_vision_tower_alone_merges(clip_module, images, tmp_path):
    alone = wrap(clip_module, picture_processor())
    mask = folding_masks(alone.tower.grid)["zero"]
    with live.apply(alone, mask):
        masked = embed(alone.tower, images)
    report = merge(alone, mask, tmp_path / "merged")
    assert (embed(load(f"hf:{report.folder}").tower, images) - masked).abs().max() < 1e-5


def test_a_low_precision_model_is_folded_in_float32_and_measured_against_it(model, images, tmp_path):
    half = wrap(copy.deepcopy(model.module).bfloat16(), processor(), name="hf:half")
    full = wrap(copy.deepcopy(half.module).float(), processor())
    mask = folding_masks(model.tower.grid)["soft mean"]
    report = merge(half, mask, tmp_path / "merged", pixels=images)
    assert report.dtype == "bfloat16"
    assert 0 < report.rounding < 2**-8  # a bfloat16 has 8 bits, and is cast once
    merged = load(f"hf:{report.folder}").tower
    with live.apply(full, mask, check_weights=False):
        masked = embed(full.tower, images)
    assert (embed(merged, images) - masked).abs().max() <= report.largest_difference
    assert report.relative_difference > 1e-5  # said, not hidden
    exact = merge(half, folding_masks(model.tower.grid)["zero"], tmp_path / "exact")
    assert (exact.dtype, exact.rounding) == ("bfloat16", 0.0)
    assert exact.relative_difference < 1e-5


def test_a_difference_is_an_error_and_leaves_nothing(model, tmp_path):
    def save_wrongly(folder):
        model.save(folder)
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        weights["vision_model.post_layernorm.bias"] += 0.01
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    broken = replace(model, save=save_wrongly)
    with pytest.raises(HeadwiseError, match="differs from the masked live model by"):
        merge(broken, folding_masks(model.tower.grid)["zero"], tmp_path / "deep" / "merged")
    assert list(tmp_path.iterdir()) == []


def test_only_a_former_merge_is_replaced_and_only_when_asked(model, tmp_path):
    masks, folder = folding_masks(model.tower.grid), tmp_path / "merged"
    folder.mkdir()
    merge(model, masks["zero"], folder)  # an empty folder is as good as none
    with pytest.raises(HeadwiseError, match="already holds a merged model"):
        merge(model, masks["uniform"], folder)
    assert Mask.from_pretrained(folder) == masks["zero"]
    merge(model, masks["uniform"], folder, overwrite=True)
    assert Mask.from_pretrained(folder) == masks["uniform"]
    assert [p.name for p in tmp_path.iterdir()] == ["merged"]
    (folder / "study.sqlite").write_text("days of work")  # as the output folder of refine has it, beside a mask
    with pytest.raises(HeadwiseError, match=r"also holds study\.sqlite"):
        merge(model, masks["zero"], folder, overwrite=True)
    assert (folder / "study.sqlite").read_text() == "days of work"
    assert [p.name for p in tmp_path.iterdir()] == ["merged"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(HeadwiseError, match="holds other files"):
        merge(model, masks["zero"], tmp_path / "mine", overwrite=True)
    with pytest.raises(HeadwiseError, match="is a file"):
        merge(model, masks["zero"], tmp_path / "mine" / "thesis.tex", overwrite=True)


FULL = """
import resource, sys
from headwise.errors import HeadwiseError
from headwise.applied.merge import merge
from headwise.edits.mask import Mask
from headwise.towers import load
model = load("hf:" + sys.argv[1])
mask = Mask.suppress(model.tower.grid, ["L0.H1"])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for target in sys.argv[2:]:
    try:
        merge(model, mask, target, overwrite=True)
    except HeadwiseError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_former_merge_and_nothing_else(model, tmp_path):
    """The system refuses bytes past a limit in the middle of the weights, as a full disk does."""
    mask, former, new = folding_masks(model.tower.grid)["zero"], tmp_path / "merged", tmp_path / "new" / "inner"
    merge(model, mask, former)
    merge(model, Mask.identity(model.tower.grid), tmp_path / "base")
    out = run_python(FULL, tmp_path / "base", former, new)
    assert f"Cannot write to {former}:" in out
    assert f"Cannot write to {new}:" in out
    assert out.count("Free some space") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "merged"]
    assert Mask.from_pretrained(former) == mask
    assert load(f"hf:{former}").tower.grid == model.tower.grid
