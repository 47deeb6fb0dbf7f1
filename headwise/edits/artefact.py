"""Edits as a folder: `head_mask.json`, a safetensors file for large values, and a model card (`card.py`).

In: edits (`Described`), or a folder, a file, a hub id. Out: the text, with a checksum and every number bit for bit, or
its fields. It knows their text and their places, not what edits mean.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from headwise.checked import Damaged, checksum, dump_tensors, load_tensors
from headwise.edits.arrays import Array
from headwise.edits.card import CARD_FILE, Described, is_hub_id, is_users_own, plain_card
from headwise.edits.edit import Edit, Letter
from headwise.edits.heads import Grid, Head
from headwise.errors import HeadwiseError, cause
from headwise.files import write_files
from headwise.hub import offline_unless_reachable
from headwise.reading import check_regular
from headwise.version import __version__

MASK_FILE = "head_mask.json"
ARRAYS_FILE = "head_mask.safetensors"
FORMAT = 2
CONTENT = ("grid", "edits", "arrays", "provenance")
KEYS = frozenset({"format", "headwise_version", *CONTENT, "checksum"})
Arrays = Mapping[str, Array]  # `L4.H0.constant` → its numbers


class Fields(NamedTuple):
    """The content of a `head_mask.json`."""

    grid: Grid
    edits: Mapping[Head, Edit]
    provenance: Mapping[str, object]


def save(mask: Described, folder: str | Path, *, card: str | None = None) -> Path:
    """Write the files and a card: see `Mask.save_pretrained`."""
    folder = Path(folder)
    files: dict[str, str | bytes] = dict(contents(mask))
    if card is not None or not is_users_own(folder / CARD_FILE):
        files = {CARD_FILE: plain_card(mask) if card is None else card, **files}
    write_files(folder, files)
    return folder / MASK_FILE


def contents(mask: Described) -> dict[str, str | bytes]:
    """Name → content of the files that hold the edits; the arrays' first, so that no text waits for them."""
    arrays = _arrays(mask)
    return {**({ARRAYS_FILE: _packed(arrays)} if arrays else {}), MASK_FILE: dumps(mask)}


def write_into(mask: Described, folder: Path) -> None:
    """Write the files of the edits into a folder that is being made, beside what is there."""
    for name, content in contents(mask).items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def read(source: str | Path, *, revision: str | None = None) -> tuple[str, str, Arrays | None]:
    """The text of a `head_mask.json`, the name of its file, and the arrays beside it: see `Mask.from_pretrained`.

    Raises:
        HeadwiseError: nothing there, or not a text.
    """
    path = Path(source)
    if os.path.isdir(path):  # unlike Path's, it takes any name
        path = path / MASK_FILE
    elif not os.path.isfile(path):
        path = _download(str(source), revision)
    try:
        check_regular(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise HeadwiseError(f"{path.parent} holds no {MASK_FILE}. Give a folder that save_pretrained wrote.") from error
    except UnicodeDecodeError as error:
        raise HeadwiseError(
            f"{path} is not a text file ({error.reason}); it is damaged. Save the edits again."
        ) from error
    except OSError as error:
        raise HeadwiseError(f"Cannot read {path}: {error.strerror or error}. Check the path and its rights.") from error
    return text, str(path), _beside(path)


def _beside(path: Path) -> Arrays | None:
    """The arrays beside a `head_mask.json`; None: there are none.

    Raises:
        HeadwiseError: a file that is damaged.
    """
    place = path.with_name(ARRAYS_FILE)
    try:
        tensors, _ = load_tensors(place)
        return {name: Array.of(tensor) for name, tensor in tensors.items()}
    except FileNotFoundError:
        return None
    except (OSError, Damaged, HeadwiseError) as error:
        raise HeadwiseError(
            f"{place} is damaged or not what was written ({error}). Save the edits again, both files."
        ) from error


# ---- the file


def dumps(mask: Described) -> str:
    """The text of `head_mask.json`; every number is written so that it reads back bit for bit.

    Raises:
        HeadwiseError: a value in the provenance that JSON cannot hold.
    """
    try:
        for key, value in mask.provenance.items():
            json.dumps({key: value}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise HeadwiseError(
            f"The edits' provenance cannot be saved: {key!r} is not a plain JSON value ({error}). "
            "Use text, finite numbers, lists and dictionaries."
        ) from error
    data = {
        "format": FORMAT,
        "headwise_version": __version__,
        "grid": {"layers": list(mask.grid.layers), "pool": mask.grid.pool},
        "edits": {str(head): edit.text(exact=True) for head, edit in mask.edits.items()},
        "arrays": {name: {"shape": list(array.shape), "digest": array.digest} for name, array in _arrays(mask).items()},
        "provenance": dict(mask.provenance),
    }
    data["checksum"] = _checksum(data)
    lines = [f"  {json.dumps(key)}: {_value(value)}" for key, value in data.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _arrays(mask: Described) -> dict[str, Array]:
    """Every array of the edits, by head and name."""
    return {
        f"{head}.{name}": array
        for head, edit in mask.edits.items()
        for letter in edit.letters
        for name, array in letter.arrays
    }


def _packed(arrays: Arrays) -> bytes:
    import torch

    return dump_tensors({name: torch.tensor(array.numpy()) for name, array in arrays.items()}, {})


def loads(text: str, where: str, arrays: Arrays | None = None) -> Fields:
    """What stands in the text of a `head_mask.json`.

    Arguments:
        text: the file's text.
        where: the file's name, for messages.
        arrays: what the safetensors file beside it holds; None: there is none.

    Raises:
        HeadwiseError: not JSON, a field that is missing or wrong, or arrays that are not those that it names.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HeadwiseError(f"{where} is not valid JSON ({error}); it is damaged. Save the edits again.") from error
    if not isinstance(data, dict):
        raise HeadwiseError(f"{where} holds a {type(data).__name__}, not an object. Are they headwise's edits?")
    _warn_of_newer(data, where)

    def wrong(key: str, wanted: str) -> HeadwiseError:
        found = f"is {_short(data[key])}" if key in data else "is missing"
        return HeadwiseError(f"{where}: the field '{key}' {found}; it has to be {wanted}.")

    layout, edits, listed = data.get("grid"), data.get("edits"), data.get("arrays", {})
    provenance = data.get("provenance", {})
    if not isinstance(layout, dict) or not _heads(layout.get("layers"), layout.get("pool", 0)):
        raise wrong("grid", 'heads per layer, as in {"layers": [12, 12], "pool": 0}')
    if not isinstance(edits, dict) or not all(isinstance(edit, str) for edit in edits.values()):
        raise wrong("edits", 'an object of texts, as in {"L4.H0": "zero", "L3.H2": "scale(1.42)"}')
    if not isinstance(listed, dict) or not all(_described(one) for one in listed.values()):
        raise wrong("arrays", "an object with the shape and the digest of every array in " + ARRAYS_FILE)
    if not isinstance(provenance, dict):
        raise wrong("provenance", "an object")
    _check_beside(listed, arrays, where)
    field, found = "grid", dict[Head, Edit]()
    try:
        grid = Grid(tuple(layout["layers"]), layout.get("pool", 0))
        field = "edits"
        for name, written in edits.items():
            head = Head.parse(name)
            grid.row_of(head)
            found[head] = _with_arrays(Edit.parse(written), head, arrays if listed else None)
    except HeadwiseError as error:
        raise HeadwiseError(f"{where}: the field '{field}' is wrong. {error}") from error
    return Fields(grid, found, provenance)


def _with_arrays(edit: Edit, head: Head, arrays: Arrays | None) -> Edit:
    """An edit with its arrays; one of `mean` may have none yet."""
    letter = edit.value
    if letter is None or not letter.kind.arrays:
        return edit
    names = [name for name, _ in letter.kind.arrays]
    known = [] if arrays is None else [name for name in names if f"{head}.{name}" in arrays]
    if not known and letter.name == "mean":
        return edit
    if arrays is None or known != names:
        missing = ", ".join(f"{head}.{name}" for name in names if name not in known)
        raise HeadwiseError(f"The edit '{letter.name}' of {head} needs {missing}, which is not in {ARRAYS_FILE}.")
    return Edit(edit.attention, Letter(letter.name, letter.number, tuple((n, arrays[f"{head}.{n}"]) for n in names)))


def _check_beside(listed: Mapping[str, Any], arrays: Arrays | None, where: str) -> None:
    """
    Raises:
        HeadwiseError: the safetensors file is missing, or holds other arrays than the JSON file names.
    """
    if listed and arrays is None:
        raise HeadwiseError(f"{where} names values in {ARRAYS_FILE}, which is not beside it. Copy both files together.")
    for name, about in listed.items():
        array = (arrays or {}).get(name)
        if array is None:
            raise HeadwiseError(f"{where}: {ARRAYS_FILE} holds no '{name}'. Copy both files together, of one saving.")
        if list(array.shape) != about["shape"] or array.digest != about["digest"]:
            raise HeadwiseError(
                f"{where}: '{name}' in {ARRAYS_FILE} is not what was saved (shape {list(array.shape)} there, "
                f"{about['shape']} here). Copy both files together, of one saving."
            )


def _described(value: Any) -> bool:
    return isinstance(value, dict) and _counts(value.get("shape"), 0) and isinstance(value.get("digest"), str)


def verify(text: str, where: str) -> None:
    """Compare the content with the checksum beside it; a file that people wrote may have none.

    Raises:
        HeadwiseError: they differ.
    """
    data = json.loads(text)
    if "checksum" in data and data["checksum"] != _checksum(data):
        raise HeadwiseError(
            f"{where} is not what was written: its checksum differs, so that a number in it is damaged or was changed. "
            "Save the mask again; if you changed it by hand, delete its line 'checksum'."
        )


def _checksum(data: Mapping[str, Any]) -> int:
    """CRC-32 of what is read of a file, whatever the spaces and the order."""
    return checksum([json.dumps({key: data[key] for key in CONTENT if key in data}, sort_keys=True)])


def _warn_of_newer(data: dict[str, Any], where: str) -> None:
    unknown = sorted(set(data) - KEYS)
    number = data.get("format", 1 if "gates" in data else FORMAT)  # 1: masks of one operator
    if type(number) is not int or number < 1:
        raise HeadwiseError(f"{where}: the field 'format' is {_short(number)}; it has to be a whole number from 1.")
    if number < FORMAT:
        raise HeadwiseError(
            f"{where} has format {number}, of a mask with one edit for all heads; this headwise reads format {FORMAT}, edits per "
            "head. Search again, or write the edits as text: L4.H0=zero, L3.H2=scale(1.4)."
        )
    if unknown or number > FORMAT:
        ignored = f"; ignored here: {', '.join(unknown)}" if unknown else ""
        warnings.warn(
            f"{where} was written by a newer headwise (format {number}, version "
            f"{data.get('headwise_version', 'unknown')}){ignored}. Upgrade headwise if results look wrong.",
            UserWarning,
            stacklevel=4,
        )


def _value(value: Any) -> str:
    """JSON with one head per line, so that a person and `diff` can read it."""
    if isinstance(value, dict) and value:
        rows = (f"    {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in value.items())
        return "{\n" + ",\n".join(rows) + "\n  }"
    return json.dumps(value)


def _counts(value: Any, least: int) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= least for item in value)


def _heads(layers: Any, pool: Any) -> bool:
    """Whether these are heads per layer; none where all heads are the pooling's, as in a ResNet."""
    return _counts([pool], 0) and (_counts(layers, 1) or (layers == [] and pool > 0))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# ---- the hub


def _download(source: str, revision: str | None) -> Path:
    repository = source.removeprefix("hf:")
    if not is_hub_id(repository):
        raise HeadwiseError(f"There are no edits at {source}: no such folder. Give a folder that holds {MASK_FILE}.")
    from huggingface_hub import hf_hub_download

    try:
        with offline_unless_reachable():
            path = Path(hf_hub_download(repository, MASK_FILE, revision=revision))
            if b'"digest"' in path.read_bytes():  # it names arrays, so there is a file of them
                hf_hub_download(repository, ARRAYS_FILE, revision=revision)
            return path
    except Exception as error:  # the hub's client raises many kinds: network, rights, names, offline mode
        raise HeadwiseError(
            f"There is no folder {source}, and the hub gave no {MASK_FILE} of {repository}: {cause(error)}\n"
            f"Give a folder that holds {MASK_FILE}, or the id of a hub repository that does."
        ) from error
