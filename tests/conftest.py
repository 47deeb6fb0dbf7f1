"""Shared fixtures: small towers of the real libraries with random weights."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach a hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two processes share two cores: threads that wait must not spin

import pytest
import torch
from torch import nn

torch.set_num_threads(1)  # pytest-xdist runs one process a core


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A study that goes on sets the threads that it was begun with: no test leaves them to the next."""
    yield
    torch.set_num_threads(1)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random values for every parameter: initial zeros and ones would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm else noise * (0.08 if parameter.dim() > 1 else 0.05))
    return module.eval()


def small_clip(layers: int = 3, heads: int = 4, seed: int = 0) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16 * heads,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=32,
        patch_size=8,
        projection_dim=24,
    )
    return randomise(CLIPVisionModelWithProjection(config), seed)


@pytest.fixture(scope="session")
def clip_module() -> nn.Module:
    return small_clip()


@pytest.fixture(scope="session")
def tower(clip_module):
    from headwise.towers import tower_of

    return tower_of(clip_module)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `headwise ...` in this process: (exit code, standard output, standard error)."""

    from headwise.cli.guard import main

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headwise", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def write_pairs(folder: Path, images: int, *, start: int = 0, splits: tuple[str, ...] = ()) -> Path:
    """Real pairs of the packaged demo as picture files and a CSV; each image's captions are rows of their own."""
    import csv

    import pyarrow.parquet as parquet

    from headwise.demo import pairs_file

    (folder / "images").mkdir(parents=True, exist_ok=True)
    table = parquet.read_table(pairs_file()).slice(start, images).to_pylist()
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "caption", *(["split"] if splits else [])])
        for i, row in enumerate(table):
            (folder / "images" / f"{i}.png").write_bytes(row["image"]["bytes"])
            for caption in row["captions"]:
                writer.writerow([f"images/{i}.png", caption, *([splits[i % len(splits)]] if splits else [])])
    return folder / "pairs.csv"
