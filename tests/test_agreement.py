"""The same model on the same WebDataset gives the same numbers here and in clip_benchmark, to 1e-6."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from headwise.demo import model_folder, pairs_file
from headwise.scoring.objectives import Classification, Retrieval
from headwise.scoring.prompts import class_embeddings
from headwise.scoring.ranking import retrieve
from headwise.scoring.recall import recalls

pytest.importorskip("clip_benchmark", reason="clip_benchmark is in the extra 'dev'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # clip_benchmark's and webdataset's own
]
KS = [1, 5, 10]
CLASSES = ["red square", "green square", "blue square", "grey square", "yellow square", "black square", "white square"]
TEMPLATES = ["a photo of a {c}.", "a drawing of the {c}.", "{c}"]


class Case:
    """A model as both tools want it, and images with captions and labels."""

    def __init__(self, model, module, tokenizer, images, captions):
        self.model, self.module, self.tokenizer = model, module, tokenizer
        self.images, self.captions = images, captions
        self.labels = [i * 3 % len(CLASSES) for i in range(len(images))]

    def embeddings(self):
        pixels = torch.stack([self.model.preprocess(image) for image in self.images])
        with torch.inference_mode():
            return torch.cat([self.model.tower.encode(part) for part in pixels.split(16)])


@pytest.fixture(scope="module", params=["open_clip", "packaged"])
def case(request):
    return random_open_clip() if request.param == "open_clip" else packaged()


def random_open_clip():
    import open_clip
    from open_clip.transform import image_transform

    from headwise.towers import wrap

    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    module = open_clip.CLIP(48, vision, text).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # far from initial zeros, so that embeddings differ
    preprocess = image_transform(32, is_train=False, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    model = wrap(module, (preprocess, tokenizer), name="open_clip:small")
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((40, 33)) for _ in range(90)]
    words = [
        "a",
        "cat",
        "dog",
        "of",
        "in",
        "the",
        "red",
        "house",
        "car",
        "tree",
        "two",
        "under",
        "big",
        "small",
        "with",
    ]
    captions = [[" ".join(rng.choice(words, 6)) for _ in range(1 + i % 4)] for i in range(90)]
    return Case(model, module, tokenizer, images, captions)


def packaged():
    if not model_folder().is_dir():
        pytest.skip("no model is packaged in this checkout")
    import pyarrow.parquet as parquet
    from transformers import AutoTokenizer, CLIPModel

    from headwise.towers import load

    class AsClipBenchmarkWantsIt:
        """transformers' CLIP behind encode_image and encode_text."""

        def __init__(self):
            self.clip = CLIPModel.from_pretrained(model_folder(), dtype=torch.float32).eval()

        def encode_image(self, images):
            return self.clip.get_image_features(pixel_values=images).pooler_output

        def encode_text(self, tokens):
            return self.clip.get_text_features(**tokens).pooler_output

    words = AutoTokenizer.from_pretrained(model_folder())
    length = words.model_max_length

    def tokenizer(texts):
        return words(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")

    rows = parquet.read_table(pairs_file()).slice(0, 200).to_pylist()
    images = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows]
    return Case(load("demo"), AsClipBenchmarkWantsIt(), tokenizer, images, [row["captions"] for row in rows])


def webdataset(folder, case, kind):
    """The case in clip_benchmark's layout; PNG, so that nothing is lost."""
    (folder / "test").mkdir(parents=True)
    (folder / "test" / "nshards.txt").write_text("1")
    (folder / "dataset_type.txt").write_text(kind)
    (folder / "classnames.txt").write_text("\n".join(CLASSES))
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for i, image in enumerate(case.images):
            png = io.BytesIO()
            image.save(png, "PNG")
            text = "\n".join(case.captions[i]) if kind == "retrieval" else str(case.labels[i])
            for ending, data in (("png", png.getvalue()), ("txt" if kind == "retrieval" else "cls", text.encode())):
                info = tarfile.TarInfo(f"{i:05d}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder


def batches(folder, case):
    from clip_benchmark.datasets.builder import build_wds_dataset

    dataset = build_wds_dataset("any", transform=case.model.preprocess, split="test", data_dir=str(folder))
    loader = torch.utils.data.DataLoader(dataset.batched(16), batch_size=None, shuffle=False)
    return dataset, loader


def test_retrieval_agrees(case, tmp_path):
    from clip_benchmark.metrics import zeroshot_retrieval

    _, loader = batches(webdataset(tmp_path / "pairs", case, "retrieval"), case)
    theirs = zeroshot_retrieval.evaluate(case.module, loader, case.tokenizer, "cpu", amp=False, recall_k_list=KS)
    texts = [caption for captions in case.captions for caption in captions]
    owner = np.repeat(np.arange(len(case.images)), [len(captions) for captions in case.captions])
    ours = Retrieval(case.model.encode_texts(texts), owner)(case.embeddings()).metrics
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)
    assert 0 < theirs["image_retrieval_recall@10"] < 1  # a comparison of zeros would say nothing


def test_classification_agrees(case, tmp_path, monkeypatch):
    from clip_benchmark.metrics import zeroshot_classification

    # clip_benchmark 1.6.2 calls float() on an array of one number, which NumPy 2.4 refuses
    monkeypatch.setattr(zeroshot_classification, "float", lambda array: array.item(), raising=False)
    dataset, loader = batches(webdataset(tmp_path / "classes", case, "classification"), case)
    loader.dataset.classes = dataset.classes
    theirs = zeroshot_classification.evaluate(
        case.module, loader, case.tokenizer, dataset.classes, dataset.templates, "cpu", amp=False
    )
    classes = class_embeddings(case.model.encode_texts, CLASSES, TEMPLATES)
    ours = Classification(classes, np.array(case.labels))(case.embeddings()).metrics
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)
    assert 0 < theirs["acc1"] < theirs["acc5"] < 1


def test_ties_are_where_the_definitions_differ():
    # a collapsed embedding: clip_benchmark breaks the ties by position and finds some images, here none are found
    from clip_benchmark.metrics.zeroshot_retrieval import recall_at_k

    images, texts = torch.ones(20, 8), torch.ones(20, 8)
    scores = torch.nn.functional.normalize(texts, dim=1) @ torch.nn.functional.normalize(images, dim=1).T
    theirs = (recall_at_k(scores, torch.eye(20, dtype=torch.bool), 5) > 0).float().mean().item()
    ours = recalls(retrieve(images, texts, np.arange(20)).ranks)
    assert theirs == pytest.approx(5 / 20)
    assert ours["image_retrieval_recall@5"] == ours["text_retrieval_recall@5"] == 0
