"""A real small CLIP tower of which one head adds a known text direction, more to some pictures than to others."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from conftest import small_clip

from headwise.data.pairs import ImageRef, Pairs, hash_bytes
from headwise.edits.heads import Head
from headwise.towers import Model, wrap

PLANTED = Head(2, 1)
WORD = "zorple"
OTHERS = [f"word{i}" for i in range(150)]
WIDTH, HEAD = 24, 16


def encode_texts(texts) -> torch.Tensor:
    """Each text a random direction of its own, and what all share."""
    rows = []
    for text in texts:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
        rows.append(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) + 1.0)
    return torch.stack(rows)


def planted_model() -> Model:
    """The planted head's output is turned, whatever it is, into the direction of WORD, through norm and projection."""
    from dataclasses import replace

    from transformers import CLIPImageProcessor

    module = small_clip(layers=3, heads=4)
    texts = torch.nn.functional.normalize(encode_texts([WORD, *OTHERS]), dim=1)
    aim = texts[0] - texts.mean(0)  # (E)
    norm, projection = module.vision_model.post_layernorm.weight, module.visual_projection.weight
    centre = torch.eye(len(norm)) - 1 / len(norm)
    through = projection @ torch.diag(norm) @ centre  # (E, D): what becomes of a part of the residual stream
    with torch.no_grad():
        direction = torch.linalg.pinv(through) @ aim  # (D)
        mix = torch.randn(HEAD, generator=torch.Generator().manual_seed(3))
        out = module.vision_model.encoder.layers[PLANTED.layer].self_attn.out_proj.weight
        columns = slice(HEAD * PLANTED.index, HEAD * (PLANTED.index + 1))
        out[:, columns] = 10 * torch.outer(direction / direction.norm(), mix)
        for layer in module.vision_model.encoder.layers:
            layer.self_attn.v_proj.weight.mul_(3)  # heads whose output differs between pictures
    size = {"height": 32, "width": 32}
    processor = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    return replace(wrap(module, processor, name="planted"), encode_texts=encode_texts, text_hash="planted")


def noise_pictures(count: int, seed: int = 0) -> list[bytes]:
    """Pictures that differ in colour and pattern."""
    import io

    from PIL import Image

    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def planted_pairs(model: Model, count: int = 400) -> Pairs:
    """The third of the pictures on which the planted head writes most have WORD in their caption."""
    import io

    from PIL import Image

    pictures = noise_pictures(count)
    pixels = torch.stack([model.preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])
    seen = {}
    layer = model.module.vision_model.encoder.layers[PLANTED.layer].self_attn.out_proj
    hook = layer.register_forward_pre_hook(lambda m, args: seen.update(z=args[0]))
    with torch.no_grad():
        model.tower.encode(pixels)
    hook.remove()
    columns = slice(HEAD * PLANTED.index, HEAD * (PLANTED.index + 1))
    mix = torch.randn(HEAD, generator=torch.Generator().manual_seed(3))
    written = (seen["z"][:, 0, columns] @ mix).numpy()  # (N)
    high = written > np.quantile(written, 2 / 3)
    rng = np.random.default_rng(5)
    captions = tuple(
        (" ".join([WORD] * bool(high[i]) + list(rng.choice(OTHERS[:120], 12, replace=False))) + f" no{i}",)
        for i in range(count)
    )
    images = tuple(
        ImageRef(f"picture {i}", lambda data=data: data, hash_bytes(data), look=bytes.fromhex(hash_bytes(data))[:8])
        for i, data in enumerate(pictures)
    )
    return Pairs("planted", images, captions, tuple(f"p{i}" for i in range(count)))
