"""A mask as a folder: `head_mask.json` and a model card.

In: what a mask is made of (`Described`), or a folder, a file, a hub id. Out: the text, with a checksum and every
number bit for bit, or its fields. It knows their text and their places, not what a mask is.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from headwise.checked import checksum
from headwise.edits.heads import Grid, Head
from headwise.edits.operators import canonical_operator
from headwise.errors import HeadwiseError, cause
from headwise.files import write_files
from headwise.hub import offline_unless_reachable
from headwise.plain import code, markdown, yaml
from headwise.version import __version__

MASK_FILE = "head_mask.json"
CARD_FILE = "README.md"
FORMAT = 1
CONTENT = ("operator", "grid", "gates", "means", "provenance")
KEYS = frozenset({"format", "headwise_version", *CONTENT, "checksum"})
OWN_CARD = "<!-- card written by headwise -->"  # a README without it is the user's own and is kept
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class Described(Protocol):
    """What the file and the card need of a mask (`headwise.edits.mask.Mask`)."""

    @property
    def grid(self) -> Grid:
        """The heads of the model."""
        ...

    @property
    def gates(self) -> tuple[tuple[float, ...], ...]:
        """One row per row of the grid, in [0, 1]."""
        ...

    @property
    def operator(self) -> str:
        """What a suppressed head emits."""
        ...

    @property
    def means(self) -> tuple[tuple[Head, tuple[float, ...]], ...]:
        """Operator `mean`: the constant output (d floats) of every head whose gate is below 1."""
        ...

    @property
    def provenance(self) -> Mapping[str, object]:
        """Where the mask comes from, as plain JSON values."""
        ...

    def gate(self, head: Head | str) -> float:
        """The gate of one head."""
        ...


class Fields(NamedTuple):
    """The content of a `head_mask.json`, in the order of `Mask`'s arguments."""

    grid: Grid
    gates: tuple[tuple[float, ...], ...]
    operator: str
    means: tuple[tuple[Head, tuple[float, ...]], ...]
    provenance: Mapping[str, object]


def save(mask: Described, folder: str | Path, *, card: str | None = None) -> Path:
    """Write `head_mask.json` and a card: see `Mask.save_pretrained`."""
    folder = Path(folder)
    files = {MASK_FILE: dumps(mask)}
    if card is not None or not is_users_own(folder / CARD_FILE):
        files = {CARD_FILE: plain_card(mask) if card is None else card, **files}
    write_files(folder, files)
    return folder / MASK_FILE


def read(source: str | Path, *, revision: str | None = None) -> tuple[str, str]:
    """The text of a `head_mask.json` and the name of its file: see `Mask.from_pretrained`.

    Raises:
        HeadwiseError: nothing there, or not a text.
    """
    path = Path(source)
    if path.is_dir():
        path = path / MASK_FILE
    elif not path.is_file():
        path = _download(str(source), revision)
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError as error:
        raise HeadwiseError(f"{path.parent} holds no {MASK_FILE}. Give a folder that save_pretrained wrote.") from error
    except UnicodeDecodeError as error:
        raise HeadwiseError(
            f"{path} is not a text file ({error.reason}); it is damaged. Save the mask again."
        ) from error
    except OSError as error:
        raise HeadwiseError(f"Cannot read {path}: {error.strerror or error}. Check the path and its rights.") from error


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
            f"The mask's provenance cannot be saved: {key!r} is not a plain JSON value ({error}). "
            "Use text, finite numbers, lists and dictionaries."
        ) from error
    data = {
        "format": FORMAT,
        "headwise_version": __version__,
        "operator": mask.operator,
        "grid": {"layers": list(mask.grid.layers), "pool": mask.grid.pool},
        "gates": [list(row) for row in mask.gates],
        "means": {str(head): list(mean) for head, mean in mask.means},
        "provenance": dict(mask.provenance),
    }
    data["checksum"] = _checksum(data)
    lines = [f"  {json.dumps(key)}: {_value(value)}" for key, value in data.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def loads(text: str, where: str) -> Fields:
    """What stands in the text of a `head_mask.json`.

    Arguments:
        text: the file's text.
        where: the file's name, for messages.

    Raises:
        HeadwiseError: not JSON, or a field that is missing or wrong.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HeadwiseError(f"{where} is not valid JSON ({error}); it is damaged. Save the mask again.") from error
    if not isinstance(data, dict):
        raise HeadwiseError(f"{where} holds a {type(data).__name__}, not an object. Is it a headwise mask?")
    _warn_of_newer(data, where)

    def wrong(key: str, wanted: str) -> HeadwiseError:
        found = f"is {_short(data[key])}" if key in data else "is missing"
        return HeadwiseError(f"{where}: the field '{key}' {found}; it has to be {wanted}.")

    layout, gates, operator = data.get("grid"), data.get("gates"), data.get("operator")
    means, provenance = data.get("means", {}), data.get("provenance", {})
    if not isinstance(operator, str):
        raise wrong("operator", 'a text such as "zero"')
    if not isinstance(layout, dict) or not _counts(layout.get("layers"), 1) or not _counts([layout.get("pool", 0)], 0):
        raise wrong("grid", 'heads per layer, as in {"layers": [12, 12], "pool": 0}')
    if not isinstance(gates, list) or not all(_numbers(row) for row in gates):
        raise wrong("gates", "one list of numbers per layer")
    if not isinstance(means, dict) or not all(_numbers(row) for row in means.values()):
        raise wrong("means", "an object of lists of numbers, one per suppressed head")
    if not isinstance(provenance, dict):
        raise wrong("provenance", "an object")
    grid = Grid(tuple(layout["layers"]), layout.get("pool", 0))
    try:
        field = "operator"
        operator = canonical_operator(operator)
        field = "means"
        heads = [Head.parse(name) for name in means]
        for head in heads:
            grid.row_of(head)
    except HeadwiseError as error:
        raise HeadwiseError(f"{where}: the field '{field}' is wrong. {error}") from error
    constants = tuple((head, tuple(map(float, row))) for head, row in zip(heads, means.values(), strict=True))
    return Fields(grid, tuple(map(tuple, gates)), operator, constants, provenance)


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
    number = data.get("format", FORMAT)
    if type(number) is not int or number < 1:
        raise HeadwiseError(f"{where}: the field 'format' is {_short(number)}; it has to be a whole number from 1.")
    if unknown or number > FORMAT:
        ignored = f"; ignored here: {', '.join(unknown)}" if unknown else ""
        warnings.warn(
            f"{where} was written by a newer headwise (format {number}, version "
            f"{data.get('headwise_version', 'unknown')}){ignored}. Upgrade headwise if results look wrong.",
            UserWarning,
            stacklevel=4,
        )


def _value(value: Any) -> str:
    """JSON with one row of gates or means per line, so that a person and `diff` can read it."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
    if isinstance(value, dict) and value:
        rows = (f"    {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in value.items())
        return "{\n" + ",\n".join(rows) + "\n  }"
    return json.dumps(value)


def _counts(value: Any, least: int) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= least for item in value)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) in (int, float) and -1e300 < item < 1e300
        for item in value  # false for NaN, infinity and true
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


# ---- the hub


def _download(source: str, revision: str | None) -> Path:
    repository = source.removeprefix("hf:")
    if not _HUB_ID.fullmatch(repository):
        raise HeadwiseError(f"There is no mask at {source}: no such folder. Give a folder that holds {MASK_FILE}.")
    from huggingface_hub import hf_hub_download

    try:
        with offline_unless_reachable():
            return Path(hf_hub_download(repository, MASK_FILE, revision=revision))
    except Exception as error:  # the hub's client raises many kinds: network, rights, names, offline mode
        raise HeadwiseError(
            f"There is no folder {source}, and the hub gave no {MASK_FILE} of {repository}: {cause(error)}\n"
            f"Give a folder that holds {MASK_FILE}, or the id of a hub repository that does."
        ) from error


# ---- the card


def card_header(base_model: str, *, merged: bool = False) -> str:
    """The YAML header of a model card.

    Arguments:
        base_model: a model's name as headwise writes it; it is listed only where it is a hub id.
        merged: the card is for a refined model, not for a mask alone.
    """
    lines = ["---", f"library_name: {'transformers' if merged else 'headwise'}"]
    reference = base_model.removeprefix("hf:")
    if base_model.startswith("hf:") and _HUB_ID.fullmatch(reference) and not Path(reference).exists():
        lines += [f"base_model: {yaml(reference)}", *(["base_model_relation: finetune"] if merged else [])]
    if merged:
        lines += ["pipeline_tag: zero-shot-image-classification"]
    lines += ["tags:", "- headwise", "- clip", "- attention-heads", "---", OWN_CARD]
    return "\n".join(lines)


def plain_card(mask: Described, *, merged: bool = False) -> str:
    """A short model card from what the mask itself knows."""
    base = str(mask.provenance.get("base_model", "an unnamed model"))
    effect = "No head is suppressed: this mask changes nothing."
    heads = [head for head in mask.grid if mask.gate(head) < 1.0]
    if heads:
        names = ", ".join(f"{head} (gate {mask.gate(head):.3g})" for head in heads)
        effect = f"Suppressed, {len(heads)} of {mask.grid.size} heads, operator {code(mask.operator)}: {names}."
    facts = [
        f"- {markdown(key.replace('_', ' '))}: {markdown(value if isinstance(value, str) else json.dumps(value))}"
        for key, value in mask.provenance.items()
        if key not in ("functions", "seen")  # numbers for `check_functions`, images to recognise: not for people
    ]
    what = "Refined image encoder" if merged else "Head mask"
    return "\n".join(
        [card_header(base, merged=merged), "", f"# {what} of {markdown(base)}", "", effect, ""]
        + ["Layers and heads count from 0. Written by headwise; the mask is `head_mask.json`.", ""]
        + (["Where it comes from:", "", *facts, ""] if facts else [])
    )


def is_users_own(readme: Path) -> bool:
    """Whether a README was not written by headwise, or cannot be read."""
    try:
        return OWN_CARD not in readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
