"""Retrieval recall on pairs the model does not train on."""

from __future__ import annotations

import numpy as np
import torch
from model import encode_images, encode_texts
from tokenizer import encode
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer


def recalls(sim: Tensor, relevant: Tensor) -> list[float]:
    """R@1, R@5, R@10 in percent; a relevant item ranks after every other item of equal score.

    Arguments:
        sim: scores (queries, items).
        relevant: bool of the same shape, at least one True a row.
    """
    best = sim.masked_fill(~relevant, -9).amax(1, keepdim=True)
    ahead = ((sim >= best) & ~relevant).sum(1)  # (queries,)
    return [round(100 * (ahead < k).float().mean().item(), 2) for k in (1, 5, 10)]


@torch.no_grad()
def evaluate(
    model: CLIPModel, tokenizer: CLIPTokenizer, images: np.ndarray, rows: list[dict], index: list[int],
    normalise,
) -> dict:  # fmt: skip
    """Recall of images by their first caption and back; equal captions count as relevant to each other."""
    texts = [rows[i]["captions"][0].lower() for i in index]
    pictures, words = [], []
    for a in range(0, len(index), 250):
        part = index[a : a + 250]
        batch = torch.from_numpy(images[part]).permute(0, 3, 1, 2)
        pictures.append(encode_images(model, normalise(batch.float() / 255)))
        words.append(encode_texts(model, encode(tokenizer, texts[a : a + 250])))
    sim = torch.cat(pictures) @ torch.cat(words).T
    _, group = np.unique(texts, return_inverse=True)
    relevant = torch.from_numpy(group[:, None] == group[None, :])
    i2t, t2i = recalls(sim, relevant), recalls(sim.T, relevant)
    return {"pairs": len(index), "i2t": i2t, "t2i": t2i, "mean_recall": round(sum(i2t + t2i) / 6, 2)}
