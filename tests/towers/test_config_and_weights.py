"""A configuration, a processor and weights that do not belong together are refused or said, whoever reads them."""

import json
import shutil

import pytest
import torch
from folders import clip_folder
from processors import real_pairs
from safetensors.torch import load_file, save_file

from headwise.errors import HeadwiseError
from headwise.towers import load

LAYER = "vision_model.encoder.layers.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return clip_folder(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def sentences(plain, tmp_path_factory):
    """The same model as sentence-transformers saves it."""
    library = pytest.importorskip("sentence_transformers")
    folder = tmp_path_factory.mktemp("sentences") / "model"
    library.SentenceTransformer(str(plain), device="cpu").save(str(folder))
    return folder


@pytest.fixture(params=["plain", "sentences"])
def folder(request, tmp_path):
    return shutil.copytree(request.getfixturevalue(request.param), tmp_path / "model")


def changed_config(folder, part: str, **values) -> None:
    (path,) = [p for p in folder.rglob("config.json") if "vision_config" in p.read_text()]
    content = json.loads(path.read_text())
    content[part].update(values)
    path.write_text(json.dumps(content))


def changed_weights(folder, change) -> None:
    (path,) = folder.rglob("model.safetensors")
    tensors = change(load_file(path))
    save_file({key: value.clone() for key, value in tensors.items()}, path, {"format": "pt"})


def test_fewer_blocks_than_were_saved_are_said(folder):
    changed_config(folder, "vision_config", num_hidden_layers=1)
    model = load(str(folder))
    assert len(model.tower.grid.layers) == 1
    assert any("16 of its weights are not used, the first is vision_model.encoder.layers.1." in n for n in model.notes)


def test_a_missing_parameter_is_refused_and_never_random(folder):
    changed_weights(folder, lambda tensors: {key: value for key, value in tensors.items() if key != LAYER})
    with pytest.raises(HeadwiseError, match=rf"weights lack 1 parameters .* the first is {LAYER}"):
        load(str(folder))


def test_a_prefix_changes_nothing(folder):
    texts, pictures = ["a red bus", "two cats"], real_pairs()[0][:2]
    before = load(str(folder))
    changed_weights(folder, lambda tensors: {f"net.{key}": value for key, value in tensors.items()})
    after = load(str(folder))
    assert torch.equal(before.encode_texts(texts), after.encode_texts(texts))
    pixels = torch.stack([before.preprocess(one) for one in pictures])
    with torch.inference_mode():
        assert torch.equal(before.tower.encode(pixels), after.tower.encode(pixels))


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("vision_config", {"image_size": 64}, r"position_embedding.weight is \(17, 64\), not \(65, 64\)"),
        ("text_config", {"vocab_size": 500}, r"token_embedding.weight is \(190, 32\), not \(500, 32\)"),
    ],
)
def test_weights_of_another_shape_are_named(plain, tmp_path, part, values, said):
    folder = shutil.copytree(plain, tmp_path / "model")
    changed_config(folder, part, **values)
    with pytest.raises(HeadwiseError, match=r"do not fit config\.json: 1 have another shape, the first is .*" + said):
        load(str(folder))


def test_pixels_that_no_tower_was_trained_on_are_said(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "model")
    assert load(str(folder)).notes == ()
    path = folder / "processor_config.json"
    content = json.loads(path.read_text())
    content["image_processor"]["do_rescale"] = False
    path.write_text(json.dumps(content))
    assert any("makes numbers up to 7" in note and "--mean" in note for note in load(str(folder)).notes)
