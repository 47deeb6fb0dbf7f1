"""Which column holds what: by option, or guessed from usual names.

In: the names of a table's columns, and those that the user gave. Out: `Columns`, one name for each role. It never
sees a cell: a wrong guess shows in `headwise data check`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from headwise.errors import HeadwiseError
from headwise.wording import option

IMAGE = (
    "image", "images", "img", "image_path", "img_path", "filepath", "file_path", "file_name", "filename",
    "image_file", "image_name", "img_filename", "path", "file", "jpg", "png", "webp", "url", "image_url",
)  # fmt: skip
CAPTION = (
    "captions", "caption", "sentences", "sentence", "texts", "text", "raw", "title", "description", "alt_text",
    "comment", "txt",
)  # fmt: skip
SPLIT = ("split",)
GROUP = ("group", "concept")
ROLES = ("image", "caption", "split", "group", "label")
LABEL = ("label", "labels", "cls", "class", "class_name", "y")
NUMBERED = re.compile(
    r"(?P<name>.*?[^\W\d])[ _.\-/]*(?P<number>\d{1,6})"
)  # caption_1, caption 2, caption.3, captions/4


@dataclass(frozen=True)
class Columns:
    """Columns of a table by the role they play; `captions` may be several."""

    image: str
    captions: tuple[str, ...] = ()
    split: str | None = None
    group: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What the user asked for: column names, or None to guess. Several caption columns are joined by commas.

    Arguments:
        loose: roles whose column was named for several sources: one that lacks it has its own, which is guessed.
        bare: the images alone are wanted; captions, labels, splits and groups need not be there and are not read.
    """

    image: str | None = None
    caption: str | None = None
    split: str | None = None
    group: str | None = None
    label: str | None = None
    loose: frozenset[str] = frozenset()
    bare: bool = False

    @property
    def strict(self) -> Wanted:
        """What was asked of this source alone."""
        return self.without(self.loose)

    def without(self, roles: Iterable[str]) -> Wanted:
        """With these roles left to be guessed."""
        return replace(self, **dict.fromkeys(roles), loose=self.loose.difference(roles))

    def among(self, found: Sequence[str]) -> Wanted:
        """What a source with these columns can be asked for."""
        there = {name.strip() for name in found}
        asked = {role: getattr(self, role) or "" for role in self.loose}
        return self.without(role for role, names in asked.items() if {n.strip() for n in names.split(",")} - there)


def choose(found: Sequence[str], wanted: Wanted, where: str) -> Columns:
    """
    Arguments:
        found: the table's column names.
        where: the source, for messages.

    Raises:
        HeadwiseError: a column that is not there, or none that looks like the image or the caption.
    """
    wanted = wanted.among(found)
    image = _one(found, wanted.image, IMAGE, "image", where)
    if image is None:
        raise _unknown("image", found, where)
    if wanted.bare:
        return Columns(image)
    asked = [name.strip() for name in (wanted.caption or "").split(",") if name.strip()]
    captions = tuple(str(_one(found, name, (), "caption", where)) for name in asked)
    label = None if captions and wanted.label is None else _one(found, wanted.label, LABEL, "label", where)
    if not captions and wanted.label is None:
        captions = caption_columns([name for name in found if name != image])
        label = None if captions else label
    if not captions and label is None:
        raise _unknown("caption", found, where)
    return Columns(
        image,
        captions if label is None else (),
        _one(found, wanted.split, SPLIT, "split", where),
        _one(found, wanted.group, GROUP, "group", where),
        label,
    )


def caption_columns(found: Sequence[str]) -> tuple[str, ...]:
    """The columns that look like captions: one of a usual name, and those of this name with a number, in their order
    (`caption`, `caption_1`, `caption_2`)."""
    by_base: dict[str, list[tuple[int, int, str]]] = {}
    for place, name in enumerate(found):
        plain = name.lower().strip()
        numbered = NUMBERED.fullmatch(plain)
        base, number = (numbered["name"], int(numbered["number"])) if numbered else (plain, -1)
        by_base.setdefault(base, []).append((number, place, name))
    usual = next((base for base in CAPTION if base in by_base), None)
    return tuple(name for _, _, name in sorted(by_base[usual])) if usual is not None else ()


def _one(found: Sequence[str], wanted: str | None, usual: tuple[str, ...], role: str, where: str) -> str | None:
    by_lower = {name.lower().strip(): name for name in reversed(found)}
    if wanted is None:
        return next((by_lower[name] for name in usual if name in by_lower), None)
    by_plain = {name.strip(): name for name in reversed(found)}
    if wanted in found:
        return wanted
    if wanted.strip() not in by_plain:
        raise HeadwiseError(f"{where} has no column {wanted!r} for the {role}. Its columns are: {_list(found)}.")
    return by_plain[wanted.strip()]


def _unknown(role: str, found: Sequence[str], where: str) -> HeadwiseError:
    first = next(
        (name for name in found if re.search(r"\.(jpe?g|png|webp|gif|bmp|tiff?)(#\d+)?$", str(name).lower())), None
    )
    if first is not None:
        return HeadwiseError(
            f"{where}: the first line must name the columns, such as image,caption; it names {str(first)[:80]}. "
            "Put such a line before it."
        )
    return HeadwiseError(
        f"{where}: no column looks like the {role}. Its columns are: {_list(found)}. "
        f"Say which one it is with {option(role, 'NAME')}."
    )


def _list(found: Sequence[str]) -> str:
    return ", ".join(str(name) for name in found[:40]) + (" …" if len(found) > 40 else "") or "none"
