"""The packaged model and pairs: a small CLIP and drawings in a style that it was not trained on."""

from __future__ import annotations

from pathlib import Path


def model_folder() -> Path:
    """An ordinary Hugging Face CLIP folder."""
    return Path(__file__).parent / "model"


def pairs_file() -> Path:
    """Pairs with splits, as Parquet."""
    return Path(__file__).parent / "pairs" / "pairs.parquet"
