"""Caption cells as people write them → texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from headwise.errors import HeadwiseError


def texts_of(cells: Iterable[object], plain: bool = False) -> Iterator[str]:
    """The captions in cells: text, a list of texts, or text that holds a JSON list of texts; only text if `plain`.

    Raises:
        HeadwiseError: a reason, without a place: no caption, an empty one, or something else than text.
    """
    found = False
    for cell in cells:
        if not plain and isinstance(cell, str) and cell.lstrip().startswith("["):
            cell = _json_list(cell)
        for value in cell if not plain and isinstance(cell, list | tuple) else [cell]:
            found = True
            if not isinstance(value, str):
                what = "missing" if value is None else f"{value!r:.40}, a {type(value).__name__} and not text"
                raise HeadwiseError(f"the caption is {what}")
            if not value.strip():
                raise HeadwiseError("the caption is empty")
            if any("\ud800" <= c <= "\udfff" for c in value):
                raise HeadwiseError("the caption is not valid UTF-8")
            yield value.strip()
    if not found:
        raise HeadwiseError("there is no caption")


def _json_list(cell: str) -> object:
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):  # brackets in a caption, thousands of them in a damaged one
        return cell
    return value if isinstance(value, list) and value else cell
