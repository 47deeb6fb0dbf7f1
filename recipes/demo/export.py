"""Write the demo model as a Hugging Face CLIP folder and prove that it reads back the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from model import IMAGE, encode_images, encode_texts
from PIL import Image
from tokenizer import encode, save_tokenizer
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

# The usual CLIP statistics, so that readers which assume them are right.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def normalise(pixels: Tensor) -> Tensor:
    """Images (B, 3, H, W) in 0..1 to the model's input range."""
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


@torch.no_grad()
def export(model: CLIPModel, tokenizer: CLIPTokenizer, images: Tensor, folder: Path) -> dict:
    """Save in float16 and compare the folder, read back by plain transformers, with the model here.

    Arguments:
        model: the model in float32.
        tokenizer: its tokenizer.
        images: a few real pictures, uint8 (n, 64, 64, 3).
        folder: where to write.
    Returns:
        Size of the weights in bytes and the largest differences seen.
    Raises:
        SystemExit: if the folder does not give the same inputs and embeddings.
    """
    before_images = encode_images(model, normalise(images.permute(0, 3, 1, 2).float() / 255))
    words = ["red heart", "a drawing of a cat", "calendar, date", "naïve café 42!"]
    before_texts = encode_texts(model, encode(tokenizer, words))

    square = {"height": IMAGE, "width": IMAGE}
    picture = CLIPImageProcessor(
        do_resize=True, size={"shortest_edge": IMAGE}, do_center_crop=True, crop_size=square,
        do_rescale=True, do_normalize=True, image_mean=MEAN, image_std=STD, do_convert_rgb=True,
    )  # fmt: skip
    half = CLIPModel(model.config).half()
    half.load_state_dict(model.half().state_dict())
    model.float()
    half.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    CLIPProcessor(image_processor=picture, tokenizer=tokenizer).save_pretrained(folder)
    picture.save_pretrained(folder)  # preprocessor_config.json, where older readers look
    (folder / "model.safetensors").chmod(0o644)

    again = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor: Any = CLIPProcessor.from_pretrained(folder)
    pictures = [Image.fromarray(i.numpy()) for i in images]
    inputs = processor(text=words, images=pictures, return_tensors="pt", padding=True)
    out = again(**inputs)
    ours = normalise(images.permute(0, 3, 1, 2).float() / 255)
    result = {
        "bytes": (folder / "model.safetensors").stat().st_size,
        "parameters": sum(p.numel() for p in again.parameters()),
        "pixel_difference": (inputs["pixel_values"] - ours).abs().max().item(),
        "image_difference": (out.image_embeds - before_images).abs().max().item(),
        "text_difference": (out.text_embeds - before_texts).abs().max().item(),
    }
    if result["pixel_difference"] > 1e-4 or max(result["image_difference"], result["text_difference"]) > 5e-3:
        raise SystemExit(f"{folder}: the saved model differs from the trained one: {result}")
    return result
