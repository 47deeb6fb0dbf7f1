"""A checkpoint file as tensors by name, whatever trainer wrote it; no code in it is ever run.

In: a file of safetensors or of `torch.save`. Out: its tensors, with names fitted to a model's own. It does not know
the model: which names are expected is told.
"""

from __future__ import annotations

import argparse
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from headwise.errors import HeadwiseError, cause

CONTAINERS = ("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model", "module", "net", "ema")
WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")  # anywhere in a name
HUGGING_FACE = ("vision_model.encoder.layers.", "vision_model.vision_model.encoder.")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Arguments:
        path: the file.
        tensors: by the names that they have in it.
        what: what the file is, for messages.
        plain: the file is a bare state dict, nothing around it.
    """

    path: Path
    tensors: Tensors
    what: str
    plain: bool


def read(path: str | Path, first: Sequence[str] = ()) -> Checkpoint:
    """Read the tensors of a checkpoint file: safetensors, or what `torch.save` wrote of tensors alone.

    Arguments:
        path: the file.
        first: keys under which weights are looked for before the usual ones.

    Raises:
        HeadwiseError: not readable, damaged, or holding Python objects or TorchScript code, which are not run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:9] == b"{":
            from safetensors.torch import load_file

            return Checkpoint(path, load_file(path), "a safetensors file", True)
        if zipfile.is_zipfile(path) and _is_torchscript(path):
            raise HeadwiseError(
                f"{path} is a TorchScript archive, code with weights; headwise runs no code from files. If you trust "
                "it, save its weights alone: torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), "
                "'weights.pt'), and give that file."
            )
        with torch.serialization.safe_globals([argparse.Namespace]):  # the arguments of a training script
            content = torch.load(path, map_location="cpu", weights_only=True)
    except HeadwiseError:
        raise
    except Exception as error:  # torch and safetensors raise many kinds for damaged files
        raise HeadwiseError(_unreadable(path, error)) from error
    return _unpack(path, content, (*first, *CONTAINERS))


def names(path: Path) -> list[str]:
    """The names of a checkpoint's tensors; of safetensors they alone are read.

    Raises:
        HeadwiseError: as for `read`.
    """
    if path.suffix != ".safetensors":
        return list(read(path).tensors)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except (OSError, SafetensorError) as error:
        raise HeadwiseError(_unreadable(path, error)) from error


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(Path(name).name == "constants.pkl" or "/code/" in name for name in archive.namelist())


def _unreadable(path: Path, error: Exception) -> str:
    text = cause(error)
    if isinstance(error, OSError):
        return f"Cannot read {path}: {error.strerror or text}. Check the path and its rights."
    if "weights_only" in text or "WeightsUnpickler" in text or "Unsupported global" in text:
        return (
            f"{path} is a pickle that holds more than tensors, and such a file can run code: {text[:300]} Headwise "
            "reads weights alone. If you trust the file, save its weights with torch.save(model.state_dict(), "
            "'weights.pt'), or as safetensors, and give that file."
        )
    return f"Cannot read {path}, which looks damaged or is not a checkpoint: {text}"


def _unpack(path: Path, content: Any, containers: Sequence[str]) -> Checkpoint:
    """The state dict inside what `torch.save` wrote."""
    around: list[str] = []
    while isinstance(content, Mapping) and not _is_state_dict(content):
        inner = next((key for key in containers if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            keys = ", ".join(map(str, list(content)[:8])) or "nothing"
            raise HeadwiseError(
                f"{path} holds no state dict: its keys are {keys}. Looked for tensors by name, bare or under one of: "
                f"{', '.join(CONTAINERS)}."
            )
        around.append(inner)
        content = content[inner]
    if not isinstance(content, Mapping):
        raise HeadwiseError(f"{path} holds a {type(content).__name__}, not a state dict (tensors by name).")
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    what = f"a training checkpoint with its weights under {'.'.join(around)!r}" if around else "a state dict"
    return Checkpoint(path, tensors, what, not around and len(tensors) == len(content))


def _is_state_dict(content: Mapping) -> bool:
    return bool(content) and sum(isinstance(value, torch.Tensor) for value in content.values()) * 2 >= len(content)


# ---- names


def without_wrappers(name: str) -> str:
    """A parameter's name without what `torch.compile`, checkpointing and FSDP put into it."""
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def fitted(names: Iterable[str], expected: Iterable[str], where: str = "the checkpoint") -> dict[str, str]:
    """The names of a checkpoint that a model needs, without what a trainer put before them.

    Arguments:
        names: in the checkpoint.
        expected: the model's own.
        where: for messages.

    Returns:
        Name in the checkpoint → the model's own, where one prefix is all that is between them. Names outside that
        prefix (a loss, a teacher) are left out. Empty where no prefix leads to any name of the model.

    Raises:
        HeadwiseError: two prefixes lead to the whole model, so that it is not said which one is meant.
    """
    wanted = set(expected)
    clean = {name: without_wrappers(name) for name in names}
    found: Counter[str] = Counter()
    for name in clean.values():
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                found[".".join(parts[:start]) + "." if start else ""] += 1
    if not found:
        return {}
    (prefix, count), *others = found.most_common()
    twins = [other for other, same in others if same == count and count > 1 and prefix]
    if twins and count >= len(wanted) - 2:
        raise HeadwiseError(
            f"{where} holds several whole models, under {', '.join(repr(p) for p in (prefix, *twins))}. "
            "Save the one that is meant by itself."
        )
    return {name: own.removeprefix(prefix) for name, own in clean.items() if own.startswith(prefix)}


def difference(tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str:
    """First missing, unexpected and misshapen parameter of a state dict, with counts, as a sentence; '' if it fits."""
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    other = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in expected.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    parts = [
        f"{len(names):,} {what}, the first is {names[0]}"
        for names, what in (
            (missing, "parameters are missing"),
            (extra, "are not the model's"),
            (other, "have another shape"),
        )
        if names
    ]
    return "; ".join(parts)
