"""The files that a model's weights were read from: which precision they have there, and how they are spread.

In: the name that a model was loaded by. Out: `Stored`, or None where it cannot be known. Headers alone are read where
the format has them; nothing is fetched.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

CHECKPOINTS = (  # in the order in which each library looks for them
    *("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin"),
)
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
LONGEST_HEADER = 100_000_000  # bytes; what safetensors allows itself


@dataclass(frozen=True)
class Stored:
    """Weights on a disk.

    Arguments:
        dtypes: tensor → its floating-point precision (other tensors are left out).
        shards: file → the tensors in it.
        metadata: safetensors file → its metadata.
        index: the index file of a model in several safetensors files.
        folder: where the files are.
        others: tensors that the library reads past (buffers of its older versions) may stay in the files.
    """

    dtypes: Mapping[str, torch.dtype]
    shards: Mapping[str, tuple[str, ...]]
    metadata: Mapping[str, Mapping[str, str]]
    index: Path | None
    folder: Path
    others: bool


def stored(source: str) -> Stored | None:
    """How the weights of a model are stored that was loaded by this name; None where that cannot be known.

    Arguments:
        source: `hf:…`, `open_clip:…` or `timm:…`, as `headwise.towers.load` understood it.
    """
    files = _files(source)
    try:
        return None if not files else _read(files, others=source.startswith("hf:"))
    except Exception:  # it was loaded from these files, so they are sound; what they are is another matter
        return None


def _files(source: str) -> list[Path]:
    """The index or the checkpoint, and where it is an index, its shards."""
    library, _, reference = source.partition(":")
    for prefix in ("local-dir:", "hf-hub:", "hf_hub:"):
        if reference.startswith(prefix):
            reference = reference.removeprefix(prefix)
            return _in_folder(Path(reference), library) if prefix == "local-dir:" else _in_cache(reference, library)
    if library == "hf":
        return _in_folder(Path(reference), library) if os.path.isdir(reference) else _in_cache(reference, library)
    name, _, file = reference.partition("/")
    if file and os.path.isfile(file):
        return [Path(file)]
    return _in_cache(_repository(library, name, file), library)


def _repository(library: str, name: str, tag: str) -> str:
    """The hub repository behind one of the library's own names; empty where there is none."""
    if library == "open_clip":
        import open_clip

        return (open_clip.get_pretrained_cfg(name, tag) or {}).get("hf_hub", "").strip("/")
    import timm

    config = timm.models.get_pretrained_cfg(name)
    return getattr(config, "hf_hub_id", None) or ""


def _names(library: str) -> list[str]:
    """One folder may hold the same model for two libraries."""
    return sorted(CHECKPOINTS, key=lambda name: name.startswith("open_clip") != (library == "open_clip"))


def _in_folder(folder: Path, library: str) -> list[Path]:
    for name in _names(library):
        if (folder / name).is_file():
            first = folder / name
            if not name.endswith(".index.json"):
                return [first]
            shards = sorted(set(json.loads(first.read_text(encoding="utf-8"))["weight_map"].values()))
            return [first, *[folder / shard for shard in shards]]
    return []


def _in_cache(repository: str, library: str) -> list[Path]:
    """The files of a hub repository as they were downloaded; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in _names(library) if repository else ():
        try:
            found = try_to_load_from_cache(repository, name)
        except HFValidationError:
            return []
        if isinstance(found, str):
            return _in_folder(Path(found).parent, library)
    return []


def _read(files: list[Path], *, others: bool) -> Stored:
    dtypes: dict[str, torch.dtype] = {}
    shards: dict[str, tuple[str, ...]] = {}
    metadata: dict[str, dict[str, str]] = {}
    index = files[0] if files[0].name.endswith(".index.json") else None
    for file in files[1:] if index else files:
        if file.suffix == ".safetensors":
            header = read_header(file)
            metadata[file.name] = header.pop("__metadata__", {})
            found = {name: FLOATS.get(entry["dtype"]) for name, entry in header.items()}
        else:
            state = torch.load(file, map_location="meta", weights_only=True, mmap=True)
            for key in ("state_dict", "model"):
                state = state[key] if isinstance(state.get(key), dict) else state
            tensors = {name.removeprefix("module."): t for name, t in state.items() if isinstance(t, torch.Tensor)}
            found = {name: t.dtype if t.is_floating_point() else None for name, t in tensors.items()}
        shards[file.name] = tuple(found)
        dtypes.update({name: dtype for name, dtype in found.items() if dtype is not None})
    return Stored(dtypes, shards, metadata, index if metadata else None, files[0].parent, others)


def read_header(file: Path) -> dict:
    """The header of a safetensors file: name → dtype, shape and place, and its metadata.

    Raises:
        ValueError: a header that is too long, or no JSON.
    """
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        if length > LONGEST_HEADER:
            raise ValueError(f"{file} has a header of {length} bytes")
        return json.loads(opened.read(length))
