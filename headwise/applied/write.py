"""A folded model as its library's own folder: the tensors that the mask changes, and nothing else, are others.

In: a model, and what changes. Out: files with the precision, metadata and spreading of those that the model came
from. Whether they are right is found out in `check.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from headwise.applied.fold import Change
from headwise.errors import HeadwiseError
from headwise.towers.base import Model
from headwise.towers.stored import Stored, read_header, stored

Tensors = dict[str, torch.Tensor]
DTYPE_KEYS = ("dtype", "torch_dtype")


@dataclass(frozen=True)
class Written:
    """What stands in the files.

    Arguments:
        values: parameter → the whole tensor as it was written, in its stored precision.
        dtypes: the precisions of all floating-point tensors, the most frequent first.
        rounding: the largest step from a folded weight to its stored precision, relative to its tensor's largest.
    """

    values: Mapping[str, torch.Tensor]
    dtypes: tuple[torch.dtype, ...]
    rounding: float


def write(model: Model, changes: Sequence[Change], folder: Path) -> Written:
    """Save a model with changed weights; the live model is read alone.

    Every tensor has the precision that it has in the files that the model was loaded from (a live model: that it has
    there): folded in float32, cast once. Metadata and the spreading over several files are kept, too.

    Arguments:
        model: what to save.
        changes: from `headwise.applied.fold.changes`, by names in `model.module`.
        folder: exists and is empty.

    Raises:
        HeadwiseError: the library cannot save the model; a changed weight is not among what it saved, or does not fit
            its precision.
    """
    _save(model, folder)
    files = sorted(folder.rglob("*.safetensors"))
    layout = stored(model.source) if model.source else None
    wanted = _folded(changes)
    keys = [key for file in files for key in read_header(file) if key != "__metadata__"]
    names = list(model.module.state_dict())
    places = {name: _key(name, keys, names) for name in wanted}
    renamed = _source_names(names, keys, layout)
    by_key = {key: name for name, key in places.items()}
    originals = {change.name: change.parameter for change in changes}
    values: Tensors = {}
    rounding, counts = 0.0, dict[torch.dtype, int]()
    saved: dict[Path, tuple[Tensors, dict[str, str]]] = {}
    for file in files:
        tensors: Tensors = {}
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                tensor = opened.get_tensor(key).clone()  # not a view of the file, which is about to be replaced
                place: str = renamed.get(str(key), str(key))
                dtype = _dtype(place, tensor, layout)
                if key in by_key:
                    name = by_key[key]
                    if not torch.equal(tensor, originals[name].detach().cpu()):
                        raise HeadwiseError(
                            f"The saved {key} is not the model's {name}, so nothing was folded into it."
                        )
                    full = wanted[name].cpu()
                    tensor = values[name] = full.to(dtype)
                    rounding = max(rounding, _rounding(full, tensor, name))
                elif dtype != tensor.dtype and torch.equal(tensor.to(dtype).to(tensor.dtype), tensor):
                    tensor = tensor.to(dtype)  # else it was changed since it was read: its value counts
                tensors[place] = tensor.contiguous()
                if tensor.is_floating_point():
                    counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
        saved[file] = tensors, dict(read_header(file).get("__metadata__", {}))
    _put(saved, layout)
    _keep_dtype_in_configs(folder, layout)
    return Written(values, tuple(sorted(counts, key=lambda dtype: -counts[dtype])), rounding)


def _save(model: Model, folder: Path) -> None:
    try:
        model.save(folder)
    except (OSError, SafetensorError, HeadwiseError):
        raise
    except Exception as error:  # libraries raise many kinds, as for tied weights
        raise HeadwiseError(
            f"{model.name} cannot be saved by its own library: {error} "
            "Where it names shared tensors, give each place its own copy, then merge again."
        ) from error


def _folded(changes: Sequence[Change]) -> dict[str, torch.Tensor]:
    """Parameter → its new value as a whole; several changes may concern one parameter."""
    whole: dict[str, torch.Tensor] = {}
    for change in changes:
        if change.name not in whole:
            whole[change.name] = change.whole
        else:
            change.put_into(whole[change.name])
    return whole


def _key(name: str, keys: Sequence[str], names: Sequence[str]) -> str:
    """A parameter's name in the files that the library saved.

    It is the same, or one of the two with something before it (a wrapper's part), or the library renames on saving:
    then it is the name, among those that are no parameter's, that shares most parts with it at its two ends
    (transformers saves AltCLIP's `encoder.layers.0.…` as `encoder.layer.0.…`). Whoever asks compares the values.

    Arguments:
        name: the parameter's.
        keys: all names in the files.
        names: all parameters and buffers of the module.

    Raises:
        HeadwiseError: there is none, or it is not said which one.
    """
    if name in keys:
        return name
    near = [key for key in keys if name.endswith(f".{key}") or key.endswith(f".{name}")]
    if not near:
        known = set(names)
        shared = {key: _shared(name, key) for key in keys if key not in known}
        near = [key for key, count in shared.items() if count and count == max(shared.values())]
    if len(near) != 1:
        raise HeadwiseError(
            f"The weight {name} is not in the files that the library saved, so the mask cannot be folded into them. "
            "Apply the mask in place with headwise.apply."
        )
    return near[0]


def _shared(name: str, key: str) -> int:
    """How many parts two names share from the start and from the end; 0 where the last one, what it is, differs."""
    one, other = name.split("."), key.split(".")
    if len(one) != len(other) or one[-2:] != other[-2:]:
        return 0
    differ = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return len(one) - (differ[-1] - differ[0] + 1) if differ else len(one)


def _source_names(names: Sequence[str], keys: Sequence[str], layout: Stored | None) -> dict[str, str]:
    """Names in the saved files → those in the source's files, where the library renamed on saving."""
    known = set() if layout is None else {key for group in layout.shards.values() for key in group}
    saved, found = set(keys), dict[str, str]()
    for name in names:
        if name in known and name not in saved:
            with suppress(HeadwiseError):  # saved by another name that is not to be told: it keeps that one
                key = _key(name, keys, names)
                if key not in known:
                    found[key] = name
    return found


def _dtype(key: str, tensor: torch.Tensor, layout: Stored | None) -> torch.dtype:
    """The precision that a tensor is to be stored in."""
    if layout is None or not tensor.is_floating_point():
        return tensor.dtype
    if key in layout.dtypes:
        return layout.dtypes[key]
    kinds = set(layout.dtypes.values())  # a checkpoint with other names: what all of its tensors have
    return kinds.pop() if len(kinds) == 1 else tensor.dtype


def _rounding(full: torch.Tensor, cast: torch.Tensor, name: str) -> float:
    if not bool(cast.isfinite().all()):
        raise HeadwiseError(
            f"{name} holds numbers that are not finite once folded and stored as {str(cast.dtype)[6:]}. Is the model "
            "sound? Load it in float32 and save it in another precision, then merge again."
        )
    largest = float(full.abs().max())
    return float((cast.to(full.dtype) - full).abs().max()) / largest if largest else 0.0


def _put(saved: Mapping[Path, tuple[Tensors, dict[str, str]]], layout: Stored | None) -> None:
    """Write the tensors in place of the files that the library saved: in as many files as they came in."""
    for file in saved:
        file.unlink()
    everything = {key: tensor for tensors, _ in saved.values() for key, tensor in tensors.items()}
    known = set() if layout is None else {key for keys in layout.shards.values() for key in keys}
    if layout is not None and layout.index is not None and set(everything) <= known:
        folder, (_, metadata) = next((file.parent, one) for file, one in saved.items())
        for name, keys in layout.shards.items():
            shard = {key: everything[key] for key in keys if key in everything} | _others(layout, everything, (name,))
            save_file(shard, folder / name, {**metadata, **layout.metadata[name]})
        (folder / layout.index.name).write_bytes(layout.index.read_bytes())
        return
    for file, (tensors, metadata) in saved.items():
        kept = {} if layout is None or len(layout.metadata) != 1 else next(iter(layout.metadata.values()))
        whole = len(saved) == 1 and layout is not None and bool(layout.metadata) and set(everything) <= known
        others = _others(layout, everything, tuple(layout.shards)) if layout is not None and whole else {}
        save_file({**tensors, **others}, file, {**metadata, **kept})


def _others(layout: Stored, tensors: Mapping[str, torch.Tensor], shards: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tensors of the source that the library does not save (buffers of older versions), as they are there."""
    found: dict[str, torch.Tensor] = {}
    if not layout.others:
        return found
    with ExitStack() as stack:
        for name in shards:
            opened: Any = stack.enter_context(safe_open(layout.folder / name, "pt"))
            found.update({key: opened.get_tensor(key) for key in layout.shards[name] if key not in tensors})
    return found


def _keep_dtype_in_configs(folder: Path, layout: Stored | None) -> None:
    """`dtype` in config.json says what is stored; the library wrote what it had in memory."""
    source = None if layout is None else layout.folder / "config.json"
    if source is None or not source.is_file():
        return
    for path in folder.rglob("config.json"):
        ours, theirs = (json.loads(p.read_text(encoding="utf-8")) for p in (path, source))
        if not isinstance(ours, dict) or not isinstance(theirs, dict) or "model_type" not in ours:
            continue
        changed = False
        for mine, other in _pairs(ours, theirs):
            kept = {key: other[key] for key in DTYPE_KEYS if key in other}
            if {key: mine[key] for key in DTYPE_KEYS if key in mine} != kept:
                changed = True
                for key in DTYPE_KEYS:
                    mine.pop(key, None)
                mine.update(kept)
        if changed:
            path.write_text(json.dumps(ours, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _pairs(ours: dict, theirs: dict) -> Iterator[tuple[dict, dict]]:
    """A configuration and its parts, each beside the source's."""
    yield ours, theirs
    for key, value in ours.items():
        if key.endswith("_config") and isinstance(value, dict):
            other = theirs.get(key)
            yield value, other if isinstance(other, dict) else {}
