"""A model, its pairs, their pixels and captions' embeddings, and the study: what every job works on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from headwise.data.cache import PixelCache, pixels
from headwise.data.files import cache_folder
from headwise.data.pairs import Pairs
from headwise.data.splits import Splits
from headwise.engine import Means, Plan, head_means, plan
from headwise.errors import HeadwiseError
from headwise.evaluator import Evaluator
from headwise.jobs.progress import Reporter, Silent, counted
from headwise.objectives import Retrieval
from headwise.study import Study
from headwise.towers.base import Model, Tower


@dataclass(frozen=True)
class Bench:
    """Everything an evaluation needs, prepared once.

    Arguments:
        model: the model, in float32.
        tower: its image tower on the plan's device and in the plan's precision.
        pairs: images and captions.
        splits: which image is in which split.
        texts: embeddings of all captions (T, E) float32.
        cache: preprocessed images.
        layout: precision, chunk and device of every evaluation.
        study: where scores are kept.
        reporter: where progress goes.
    """

    model: Model
    tower: Tower
    pairs: Pairs
    splits: Splits
    texts: torch.Tensor
    cache: PixelCache
    layout: Plan
    study: Study | None
    reporter: Reporter = field(default_factory=Silent)

    def indices(self, split: str) -> tuple[int, ...]:
        return getattr(self.splits, split)

    def objective(self, split: str) -> Retrieval:
        """Retrieval within one split."""
        subset = self.pairs.subset(self.indices(split))
        wanted = np.isin(self.pairs.owner, self.indices(split))
        order = np.argsort(_position(self.indices(split), len(self.pairs))[self.pairs.owner[wanted]], kind="stable")
        texts = self.texts[np.flatnonzero(wanted)[order]]  # (T, E)
        return Retrieval(
            texts,
            subset.owner,
            scale=self.model.logit_scale,
            bias=self.model.logit_bias,
            loss=self.model.loss,
            device=self.layout.device,
        )

    def evaluator(self, split: str) -> Evaluator:
        return Evaluator(
            tower=self.tower,
            layout=self.layout,
            pixels=self.cache.take(self.indices(split)),
            objective=self.objective(split),
            study=self.study,
            split=split,
        )

    def model_json(self) -> dict[str, object]:
        """What results say of the model."""
        tower = self.tower
        return {
            "name": self.model.name,
            "family": tower.family,
            "layers": list(tower.grid.layers),
            "pool_heads": tower.grid.pool,
            "weights_hash": self.model.tower.weights_hash,
            "tokens": tower.tokens,
            "resolution": tower.resolution,
        }

    @cached_property
    def means(self) -> Means:
        """Mean head outputs over the search split, for operator `mean`."""
        return head_means(self.tower, self.cache.take(self.splits.search), self.layout)


def _position(indices: tuple[int, ...], total: int) -> np.ndarray:
    """Where each image stands in a split, int64 (N)."""
    place = np.zeros(total, np.int64)
    place[list(indices)] = np.arange(len(indices))
    return place


def prepare(
    model: Model,
    pairs: Pairs,
    splits: Splits,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    chunk: int | None = None,
    study: Path | None = None,
    cache_dir: Path | None = None,
    reporter: Reporter | None = None,
) -> Bench:
    """Decode the images, embed the captions, open the study.

    Arguments:
        model, pairs, splits: what to work on.
        dtype, device, chunk: see `engine.plan`.
        study: the study's file; None keeps nothing.
        cache_dir: where preprocessed images and caption embeddings are kept between runs.
        reporter: where progress goes.

    Raises:
        HeadwiseError: a model without a text tower, an image that cannot be decoded, a study of something else.
    """
    reporter = reporter or Silent()
    layout = plan(model.tower, dtype=dtype, device=device, chunk=chunk)
    reporter.say(
        f"Precision {layout.dtype} on {layout.device}, {layout.chunk} images a chunk, {layout.stack} masks a stack."
    )
    texts = embed_texts(model, pairs.texts, cache_dir=cache_dir, reporter=reporter)
    opened = Study(study, fingerprint(model, pairs, splits, layout)) if study else None
    with counted(reporter, "Decoding images", "images") as tell:
        cache = pixels(pairs, model, cache_dir=cache_dir, progress=tell, say=reporter.say)
    tower = model.tower.cast(layout.device, layout.torch_dtype)
    return Bench(model, tower, pairs, splits, texts, cache, layout, opened, reporter)


def fingerprint(model: Model, pairs: Pairs, splits: Splits, layout: Plan) -> Mapping[str, object]:
    """All that a score depends on besides split and mask."""
    return {
        "model": {
            "weights": model.tower.weights_hash,
            "text": model.text_hash,
            "preprocess": dict(model.preprocess_spec),
        },
        "data": {"pairs": pairs.hash, "split": splits.hash},
        "objective": {"name": Retrieval.name, "loss": model.loss, "scale": round(model.logit_scale, 6)},
        "precision": {"dtype": layout.dtype, "chunk": layout.chunk, "stack": layout.stack, "device": layout.device},
    }


def embed_texts(
    model: Model, texts: tuple[str, ...], *, cache_dir: Path | None = None, reporter: Reporter | None = None
) -> torch.Tensor:
    """The captions' embeddings, (T, E) float32 on the CPU, computed once and kept.

    Raises:
        HeadwiseError: the model has no text tower.
    """
    from safetensors.torch import load_file, save_file

    if model.encode_texts is None:
        raise HeadwiseError(
            f"{model.name} has no text tower, and captions need one. Use the whole model (CLIPModel, not "
            "CLIPVisionModelWithProjection)."
        )
    key = hashlib.sha256(json.dumps([model.text_hash, texts]).encode()).hexdigest()[:32]
    path = cache_folder(cache_dir) / "texts" / f"{key}.safetensors"
    if path.exists():
        try:
            return load_file(path)["texts"]
        except Exception:  # a damaged cache is made again
            path.unlink(missing_ok=True)
    unique = sorted(dict.fromkeys(texts), key=len)  # texts of like length share little padding
    found: list[torch.Tensor] = []
    with (reporter or Silent()).stage("Embedding captions", len(unique), "captions") as advance:
        for start in range(0, len(unique), 1024):
            part = unique[start : start + 1024]
            found.append(model.encode_texts(part).float().cpu())
            advance(len(part))
    place = {text: i for i, text in enumerate(unique)}
    embeddings = torch.cat(found)[[place[text] for text in texts]].contiguous()  # (T, E)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{id(found)}.partial")
    save_file({"texts": embeddings}, partial)
    partial.replace(path)
    return embeddings
