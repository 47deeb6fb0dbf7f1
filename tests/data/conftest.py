"""Pictures and files in the formats that users have."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from headwise.data.files import cache_folder


def picture(seed: int, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A smooth random picture: different seeds look different."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture(seed).save(stream, kind)
    return stream.getvalue()


def bomb(side: int = 50_000) -> bytes:
    """A PNG of a few bytes that claims to be enormous."""

    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side // 8 + 1) * 10)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEADWISE_CACHE", str(folder))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
    assert cache_folder() == folder
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with 0.png … 9.png."""
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
    return tmp_path


def preprocess(image: Image.Image) -> torch.Tensor:
    """Resize to 16 × 16, then (p/255 − mean)/std, as CLIP's processors do."""
    values = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BICUBIC), np.float32)
    x = torch.from_numpy(values).permute(2, 0, 1) / 255  # (3, 16, 16)
    mean, std = torch.tensor([0.48, 0.45, 0.4]), torch.tensor([0.26, 0.26, 0.27])
    return (x - mean[:, None, None]) / std[:, None, None]


def model(transform: Callable[[Image.Image], torch.Tensor] = preprocess, **spec: object):
    """What the cache needs of a model."""
    return SimpleNamespace(name="test model", preprocess=transform, preprocess_spec={"size": 16, **spec})
