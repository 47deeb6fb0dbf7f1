"""The packaged model and pairs: golden against plain transformers on real drawings and real captions."""

import io
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from headwise.data.read import read
from headwise.demo import model_folder, pairs_file
from headwise.edits.mask import Mask
from headwise.evaluation import engine
from headwise.evaluation.layout import Plan
from headwise.towers import load


@pytest.fixture(scope="module")
def rows():
    return parquet.read_table(pairs_file()).to_pylist()


@pytest.fixture(scope="module")
def library():
    model = CLIPModel.from_pretrained(model_folder(), dtype=torch.float32).eval()
    return model, CLIPProcessor.from_pretrained(model_folder())


@pytest.fixture(scope="module")
def model():
    return load("demo")


@pytest.fixture(scope="module")
def pictures(rows):
    return [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows[:24]]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_sizes_licences_and_splits_of_what_is_packaged(rows):
    assert (model_folder() / "model.safetensors").stat().st_size <= 16e6
    assert size(pairs_file().parent) <= 6e6
    assert {"LICENSE", "ATTRIBUTION.md"} <= {path.name for path in pairs_file().parent.iterdir()}
    assert 1500 <= len(rows) <= 2500
    concepts: dict[str, set[str]] = {}
    for row in rows:
        concepts.setdefault(row["split"], set()).add(row["concept"])
    assert set(concepts) == {"search", "pick", "test"}
    assert sum(map(len, concepts.values())) == len(set().union(*concepts.values()))


def test_pixels_and_image_embeddings_are_transformers_own(model, library, pictures):
    own, processor = library
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    ours = torch.stack([model.preprocess(picture) for picture in pictures])
    assert torch.equal(ours, pixels)
    with torch.no_grad():
        expected = own.get_image_features(pixel_values=pixels).pooler_output
    identity = Mask.identity(model.tower.grid)
    out = dict(engine.embed(model.tower, ours, [identity], Plan()))[identity]
    assert (out - expected).abs().max() < 1e-5


def test_tokens_and_text_embeddings_are_transformers_own(model, library, rows):
    own, processor = library
    texts = [row["captions"][0] for row in rows[:40]]
    tokens = processor.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    assert (
        processor.tokenizer.batch_decode(tokens["input_ids"], skip_special_tokens=True)[0].strip() == texts[0].lower()
    )
    with torch.no_grad():
        expected = own.get_text_features(**tokens).pooler_output
    assert (model.encode_texts(texts) - expected).abs().max() < 1e-5


def test_zero_on_every_head_is_zeroing_its_out_projection_columns(model, library, pictures):
    own, _ = library
    pixels = torch.stack([model.preprocess(picture) for picture in pictures[:6]])
    masks = {head: Mask.suppress(model.tower.grid, [head]) for head in model.tower.grid}
    found = dict(engine.embed(model.tower, pixels, list(masks.values()), Plan()))
    for head, mask in masks.items():
        weight = own.vision_model.encoder.layers[head.layer].self_attn.out_proj.weight
        columns = slice(32 * head.index, 32 * head.index + 32)
        kept = weight[:, columns].clone()
        with torch.no_grad():
            weight[:, columns] = 0
            expected = own.get_image_features(pixel_values=pixels).pooler_output
            weight[:, columns] = kept
        assert (found[mask] - expected).abs().max() < 1e-5, head


def test_the_packaged_model_knows_what_it_was_packaged_for(model, rows):
    """Far above chance, which is 10 of 282."""
    from headwise.jobs.evaluate import evaluate

    found = evaluate(model, "demo", only_split="pick")
    assert found["images"] == sum(row["split"] == "pick" for row in rows)
    assert found["metrics"]["image_retrieval_recall@10"] > 0.2
    assert len(read("demo")) == len(rows)
