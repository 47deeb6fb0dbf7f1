"""Models that are not held plainly, files that bring code, and numbers that would fill the memory are refused."""

import io
import json
import socket
import sys
import threading
from contextlib import suppress

import golden
import pytest
import torch
from cases import hf_model, timm_model
from folders import CLIP_TEXT, SMALL, clip_folder, open_clip_folder, sized
from processors import clip
from torch import nn

from headwise.data.read import read
from headwise.errors import HeadwiseError
from headwise.towers import load, wrap
from headwise.towers.whole import no_foreign_code


def plain():
    return golden.randomise(hf_model("CLIP", CLIP_TEXT, SMALL))


PEFT = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing")  # what PEFT asks of transformers


@PEFT
@pytest.mark.parametrize("modules", [["q_proj", "out_proj"], ["fc1"]])
@pytest.mark.parametrize("injected", [False, True])
def test_adapters_are_refused_until_they_are_merged(modules, injected, tmp_path):
    import peft

    config = peft.LoraConfig(r=2, target_modules=modules, init_lora_weights=False)
    processor = sized(clip(tmp_path))
    base = plain()
    model = peft.get_peft_model(base, config)
    with pytest.raises(HeadwiseError, match=r"merge_and_unload\(\)"):
        wrap(base if injected else model, processor)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        own = model.eval().get_image_features(pixel_values=images)
        merged = wrap(model.merge_and_unload(), processor)
        assert golden.difference(merged.tower.encode(images), getattr(own, "pooler_output", own)) < 1e-4


@PEFT
def test_an_adapters_folder_is_refused(tmp_path):
    import peft

    folder = clip_folder(tmp_path / "base")
    from transformers import CLIPModel

    peft.get_peft_model(
        CLIPModel.from_pretrained(folder), peft.LoraConfig(r=2, target_modules=["q_proj"])
    ).save_pretrained(tmp_path / "adapter")
    with pytest.raises(HeadwiseError, match="adapter of PEFT"):
        load(f"hf:{tmp_path / 'adapter'}")


def test_offloaded_weights_are_refused(tmp_path):
    from accelerate import cpu_offload

    with pytest.raises(HeadwiseError, match="meta device"):
        wrap(cpu_offload(plain()), sized(clip(tmp_path)))
    with pytest.raises(HeadwiseError, match="meta device"):
        wrap(hf_model("CLIP", CLIP_TEXT, SMALL).to("meta"), sized(clip(tmp_path)))


@pytest.mark.filterwarnings("ignore")  # torch deprecates its own way of quantising
def test_quantised_weights_are_refused(tmp_path):
    processor = sized(clip(tmp_path))
    eights = plain()
    layer = eights.vision_model.encoder.layers[0].mlp.fc1
    layer.weight = nn.Parameter(layer.weight.detach().to(torch.int8), requires_grad=False)
    with pytest.raises(HeadwiseError, match=r"quantised .*fc1.weight is int8"):
        wrap(eights, processor)
    with pytest.raises(HeadwiseError, match=r"quantised .*float8"):
        wrap(plain().to(torch.float8_e4m3fn), processor)
    if "onednn" in torch.backends.quantized.supported_engines:
        torch.backends.quantized.engine = "onednn"
        dynamic = torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear}, dtype=torch.qint8)
        with pytest.raises(HeadwiseError, match="quantised"):
            wrap(dynamic, processor)


def test_a_quantised_folder_is_refused(tmp_path):
    folder = clip_folder(tmp_path)
    changed(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    with pytest.raises(HeadwiseError, match="is quantised"):
        load(str(folder))


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_compiled_torchscript_is_refused():
    with pytest.raises(HeadwiseError, match="TorchScript model"):
        wrap(torch.jit.script(nn.Linear(2, 2)))


# ---- pictures that do not fit


def test_a_processor_of_another_size_is_refused_with_the_way_out(tmp_path):
    folder = clip_folder(tmp_path, size=96)
    with pytest.raises(
        HeadwiseError, match=r"makes \(3, 96, 96\) of a picture, the tower takes \(3, 32, 32\)"
    ) as caught:
        load(str(folder))
    assert "--image-size 32" in str(caught.value)
    assert load(str(folder), image_size=32).tower.resolution == 32
    assert load(str(folder), image_size=96).tower.resolution == 96


def test_a_preprocessing_that_does_not_crop_is_refused():
    from torchvision.transforms import Compose, Resize, ToTensor

    module = timm_model("test_vit", num_classes=0)
    with pytest.raises(HeadwiseError, match=r"the tower takes \(3, 160, 160\)"):
        wrap(module, Compose([Resize(160), ToTensor()]))
    with pytest.raises(HeadwiseError, match=r"fails on a picture of 60 × 40 pixels: .no such thing"):
        wrap(module, (fails, None))


def fails(image):
    raise KeyError("no such thing")


# ---- classifiers


@pytest.mark.parametrize("classes", [1000, 37, 512, 2])
def test_class_scores_are_never_the_embedding(classes, tmp_path):
    module = golden.randomise(timm_model("test_vit", num_classes=classes))
    model = wrap(module)
    images = golden.pictures(model.tower)
    with torch.inference_mode():
        own = module.forward_head(module.forward_features(images), pre_logits=True)
        assert torch.equal(model.tower.encode(images), own)
        assert model.tower.encode(images).shape[-1] == module.num_features
        model.save(tmp_path / "saved")
        again = load(str(tmp_path / "saved"))
        assert torch.equal(again.tower.encode(images), own)
        assert again.module.num_classes == classes
        torch.save(module.state_dict(), tmp_path / "weights.pt")
        assert torch.equal(load(f"timm:test_vit/{tmp_path / 'weights.pt'}").tower.encode(images), own)


def test_the_projection_of_a_clip_is_part_of_the_embedding(tmp_path):
    few = {"depth": 1, "img_size": 32}
    module = golden.randomise(timm_model("vit_base_patch16_clip_224.openai", **few))
    assert module.num_classes == 512
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(wrap(module).tower.encode(images), module(images))
        tuned = golden.randomise(timm_model("vit_base_patch16_clip_224.openai", num_classes=37, **few))
        assert wrap(tuned).tower.encode(images).shape == (1, 768)


def test_a_text_tower_for_the_outputs_says_that_they_are_the_embedding():
    module = golden.randomise(timm_model("test_vit", num_classes=12))
    model = wrap(module, (None, lambda texts: torch.ones(len(texts), 12)))
    images = golden.pictures(model.tower)
    with torch.inference_mode():
        assert torch.equal(model.tower.encode(images), module(images))


# ---- foreign code


def changed(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


CODE = "import pathlib\npathlib.Path({trace!r}).touch()\nclass X: pass\n"


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "mine", "auto_map": {"AutoConfig": "code.X", "AutoModel": "code.X"}}),
        ("processor_config.json", {"processor_class": "Mine", "auto_map": {"AutoProcessor": "code.X"}}),
        ("tokenizer_config.json", {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["code.X", "code.X"]}}),
    ],
)
@pytest.mark.parametrize("open_clip", [False, True])
def test_code_of_a_model_is_never_run_nor_asked_about(file, values, open_clip, tmp_path, monkeypatch):
    trace, folder = tmp_path / "trace", clip_folder(tmp_path / "own")
    (folder / "code.py").write_text(CODE.format(trace=str(trace)))
    changed(folder / file, **values)
    if open_clip:  # its tokenizer, and a text tower, are of transformers
        name = "hf_model_name" if file == "config.json" else "hf_tokenizer_name"
        text = {"hf_tokenizer_name": "x", "hf_model_name": str(folder), "tokenizer_kwargs": {"trust_remote_code": True}}
        config = json.loads((open_clip_folder(folder)[0] / "open_clip_config.json").read_text())
        config["model_cfg"]["text_cfg"] |= text if name == "hf_tokenizer_name" else {"hf_model_name": str(folder)}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    answers = io.StringIO("y\n" * 1000)
    monkeypatch.setattr(sys, "stdin", answers)
    if file == "config.json" or open_clip:
        with pytest.raises(HeadwiseError, match="Python code"):
            load(str(folder))
    else:  # of a family that transformers knows: its own classes are used
        with suppress(HeadwiseError):
            load(str(folder))
    assert not trace.exists()
    assert answers.tell() == 0  # nobody was asked


# ---- numbers and nesting in configurations


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("preprocessor", {"crop_size": {"height": 10**6, "width": 10**6}}),
        ("preprocessor", {"size": {"shortest_edge": 10**6}}),
        ("preprocessor", {"crop_size": 10**9}),
        ("config.json", {"vision_config": {"num_hidden_layers": 10**6}}),
        ("config.json", {"vision_config": {"hidden_size": 10**8}}),
        ("config.json", {"vision_config": {"image_size": 10**6}}),
        ("config.json", {"text_config": {"vocab_size": 10**12}}),
        ("tokenizer_config.json", {"model_max_length": [[]]}),
    ],
)
def test_sizes_that_no_model_has_are_a_sentence(file, values, tmp_path):
    folder = clip_folder(tmp_path)
    if file == "preprocessor":
        file = "preprocessor_config.json"
        own = json.loads((folder / "processor_config.json").read_text())["image_processor"]
        (folder / file).write_text(json.dumps(own | values))
        changed(folder / "processor_config.json", image_processor=own | values)
    else:
        own = json.loads((folder / file).read_text())
        nested = {k: {**own[k], **v} if isinstance(own.get(k), dict) else v for k, v in values.items()}
        changed(folder / file, **nested)
    with pytest.raises(HeadwiseError):
        load(str(folder))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 500 + "1" + "}" * 500, '{"a": ' + "9" * 5000 + "}", "{", "7"]
)
@pytest.mark.parametrize("file", ["config.json", "open_clip_config.json", "preprocessor_config.json"])
def test_json_that_is_none_is_a_sentence(text, file, tmp_path):
    folder = clip_folder(tmp_path / "own")
    if file == "open_clip_config.json":
        open_clip_folder(folder)
    (folder / file).write_text(text)
    with pytest.raises(HeadwiseError, match=file):
        load(str(folder))


# ---- the hub


@pytest.fixture
def dead_hub():
    """A server that closes every connection: its address, and how many there were."""
    server, asked = socket.create_server(("127.0.0.1", 0)), []

    def serve():
        with suppress(OSError):
            while True:
                connection, address = server.accept()
                asked.append(address)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
    server.close()


@pytest.mark.parametrize(
    "name", ["hf:somebody/some-clip", "open_clip:hf-hub:somebody/some-clip", "timm:hf-hub:somebody/some-clip"]
)
def test_without_a_network_the_hub_is_asked_once_and_not_again_for_half_a_minute(name, dead_hub, monkeypatch):
    from huggingface_hub import constants

    address, asked = dead_hub
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(HeadwiseError, match="some-clip"):
        load(name)
    assert len(asked) == 1
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("source", ["hf:somebody/some-pairs?split=test", "hf://datasets/somebody/some-pairs/a.csv"])
def test_without_a_network_pairs_of_the_hub_are_refused_after_one_question(source, dead_hub, monkeypatch):
    import datasets.config
    from huggingface_hub import constants

    address, asked = dead_hub
    monkeypatch.setattr(constants, "ENDPOINT", address)
    for place in (constants, datasets.config):
        monkeypatch.setattr(place, "HF_HUB_OFFLINE", False)
    with pytest.raises(HeadwiseError, match=r"some-pairs[^$]*the (Hugging Face )?hub does not answer"):
        read(source)
    assert len(asked) == 1
    assert constants.HF_HUB_OFFLINE is False
    assert datasets.config.HF_HUB_OFFLINE is False


def test_a_configuration_that_describes_more_than_the_weights_hold_is_refused_before_memory_is_taken(tmp_path):
    folder = clip_folder(tmp_path / "hf")
    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    changed(folder / "config.json", vision_config=vision | {"hidden_size": 65536, "num_hidden_layers": 200})
    with pytest.raises(HeadwiseError, match=r"describes [\d,]{15,} parameters, its weights have [\d,]+ bytes"):
        load(str(folder))
    folder, _ = open_clip_folder(tmp_path / "open_clip")
    content = json.loads((folder / "open_clip_config.json").read_text())
    content["model_cfg"]["vision_cfg"] |= {"width": 65536, "layers": 200, "head_width": 64}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    with pytest.raises(HeadwiseError, match=r"describes [\d,]{15,} parameters, its weights have [\d,]+ bytes"):
        load(str(folder))


def test_the_guard_against_code_holds_until_the_last_who_loads_is_done():
    from transformers import dynamic_module_utils as dynamic

    before = dynamic.get_class_in_module, dynamic.TIME_OUT_REMOTE_CODE
    first, second = no_foreign_code(), no_foreign_code()  # as in two threads that overlap
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(ValueError, match="trust_remote_code is never given"):
        dynamic.get_class_in_module("a", "b")
    second.__exit__(None, None, None)
    assert (dynamic.get_class_in_module, dynamic.TIME_OUT_REMOTE_CODE) == before


def test_a_preprocessing_given_to_wrap_is_what_is_saved(tmp_path):
    import open_clip
    from processors import real_pairs

    folder, module = open_clip_folder(tmp_path / "own")
    module = open_clip.create_model(f"local-dir:{folder}")
    given = open_clip.image_transform(32, False, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "squash", "bilinear")
    wrap(module, given, name=f"open_clip:local-dir:{folder}").save(tmp_path / "saved")
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'saved'}")
    image = real_pairs()[0][0]
    assert torch.equal(preprocess(image), given(image))


@pytest.mark.parametrize("made", [{"force_image_size": 48}, {"force_quick_gelu": True}, {"force_context_length": 16}])
def test_a_model_made_otherwise_than_its_architecture_is_saved_as_it_is(made, tmp_path):
    import open_clip

    folder, _ = open_clip_folder(tmp_path / "own")
    module = golden.randomise(open_clip.create_model(f"local-dir:{folder}", **made))
    wrap(module, name=f"open_clip:local-dir:{folder}").save(tmp_path / "saved")
    again = open_clip.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
    side = made.get("force_image_size", 32)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    texts = open_clip.get_tokenizer("ViT-B-32")(["a cat"], context_length=made.get("force_context_length", 24))
    with torch.inference_mode():
        assert torch.equal(again.encode_image(images), module.encode_image(images))
        assert torch.equal(again.encode_text(texts), module.encode_text(texts))
