"""Published results are recognised by the names that users type, and by nothing else."""

from dataclasses import asdict

import pytest

from headwise.cli.console import print_evaluations
from headwise.scoring.reference import compare, reference_for


@pytest.mark.parametrize(
    ("model", "dataset", "name", "value"),
    [
        ("hf:openai/clip-vit-base-patch32", "hf:nlphuji/flickr_1k_test_image_text_retrieval", "Flickr30k", 0.588),
        ("open_clip:ViT-B-32/openai", "karpathy:data/dataset_flickr30k.json?images=flickr", "Flickr30k", 0.588),
        ("open_clip:ViT-B-32-quickgelu/openai", "wds:wds_mscoco_captions", "COCO", 0.304),
        ("timm:vit_base_patch16_clip_224.openai", "wds:/data/imagenet1k", "ImageNet", 0.683),
        ("hf:openai/clip-vit-large-patch14", "hf:nlphuji/mscoco_2014_5k_test_image_text_retrieval", "COCO", 0.365),
        ("hf:openai/clip-vit-large-patch14-336", "dataset_coco.json", "COCO", 0.371),
        ("hf:laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "flickr30k", "Flickr30k", 0.776),
        ("open_clip:ViT-H-14/laion2b_s32b_b79k", "flickr30k", "Flickr30k", 0.776),
        ("hf:google/siglip-base-patch16-224", "imagenet-1k", "ImageNet", 0.76),
        ("open_clip:ViT-B-16-SigLIP/webli", "imagenet", "ImageNet", 0.76),
        ("hf:OFA-Sys/chinese-clip-vit-base-patch16", "chinese-clip:Flickr30k-CN", "Flickr30k-CN", 0.627),
        ("hf:OFA-Sys/chinese-clip-vit-base-patch16", "chinese-clip:/data/COCO-CN", "COCO-CN", 0.622),
    ],
)
def test_what_users_type_is_recognised(model, dataset, name, value):
    found = reference_for(model, dataset)
    assert found is not None
    assert found.dataset == name
    assert next(iter(found.metrics.values())) == value


@pytest.mark.parametrize(
    ("model", "dataset"),
    [
        ("hf:openai/clip-vit-base-patch32", "pairs.csv"),
        ("hf:openai/clip-vit-base-patch32", "Flickr30k-CN"),
        ("hf:openai/clip-vit-base-patch32", "flickr8k"),
        ("hf:openai/clip-vit-base-patch32", "imagenet-r"),
        ("hf:openai/clip-vit-base-patch32", "imagenetv2"),
        ("hf:me/clip-vit-base-patch32-tuned", "flickr30k"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "flickr30k"),
        ("hf:google/siglip-base-patch16-384", "flickr30k"),
        ("hf:google/siglip2-base-patch16-224", "flickr30k"),
        ("demo", "demo"),
    ],
)
def test_anything_else_has_no_reference(model, dataset):
    assert reference_for(model, dataset) is None


def test_another_gallery_size_has_no_reference():
    model = "hf:openai/clip-vit-base-patch32"
    assert reference_for(model, "flickr30k", 1000) is not None
    assert reference_for(model, "flickr30k", 31_014) is None


def test_a_deviation_above_half_a_point_is_marked():
    reference = reference_for("hf:openai/clip-vit-base-patch32", "flickr30k")
    assert reference is not None
    rows = compare(reference, {"image_retrieval_recall@1": 0.593, "text_retrieval_recall@1": 0.78, "mean_recall": 0.7})
    assert [(row.metric, row.deviates) for row in rows] == [
        ("image_retrieval_recall@1", False),
        ("text_retrieval_recall@1", True),
    ]


def test_the_table_shows_expected_beside_measured_and_flags_a_deviation(capsys):
    reference = reference_for("hf:openai/clip-vit-base-patch32", "flickr30k", 1000)
    assert reference is not None
    metrics = {"image_retrieval_recall@1": 0.588, "text_retrieval_recall@1": 0.7}
    one = {
        "dataset": "flickr30k",
        "model": "hf:openai/clip-vit-base-patch32",
        "mask": "identity",
        "images": 1000,
        "captions": 5000,
        "metrics": metrics,
        "reference": [asdict(row) for row in compare(reference, metrics)],
    }
    print_evaluations([one])
    lines = capsys.readouterr().out.splitlines()
    assert any("published" in line for line in lines)
    assert any("58.80" in line and line.count("58.80") == 2 and "!" not in line for line in lines)
    assert any("70.00" in line and "78.90 !" in line for line in lines)
    assert any("differs from the published figure" in line for line in lines)
