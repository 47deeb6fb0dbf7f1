"""What is done to one head: an edit of how it attends, an edit of what it writes, or one of each.

    z' = M · (A' v) + c        A' (attention side): which values are mixed        M, c (value side): what becomes of them

A head's output z = A·v, (N, d), with A = softmax(q kᵀ/√d), (N, N). Each side is one `Letter`: a name, at most one number
and arrays. Written `zero`, `scale(1.42)`, `temperature(0.6)+scale(0.9)`. Suppressing a head, AAT's own case, is the
corner of this family where a letter's number is 0. How it is computed is in `operators.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from headwise.edits.arrays import Array
from headwise.errors import HeadwiseError

ATTENTION, VALUE = "attention", "value"
LARGEST = 1e30  # of any number: heads compute in float32
_FORM = re.compile(r"^([a-z_]+)(?:\(([^()]*)\))?$")


class Kind(NamedTuple):
    """A kind of letter.

    Arguments:
        side: `attention` or `value`.
        about: what a head then does.
        keeps: the number that leaves the head as it is; None: no number does, or there is none.
        most: the largest number allowed (the smallest is 0).
        default: the number of a letter that is written without one; None: it has no number.
        needs: a number has to be written.
        arrays: names and shapes of its arrays, in d, the head's width.
        class_token: only where there is a class token.
        tokens: only where queries are tokens (not in attention pooling).
    """

    side: str
    about: str
    keeps: float | None = None
    most: float = 1.0
    default: float | None = 0.0
    needs: bool = False
    arrays: tuple[tuple[str, str], ...] = ()
    class_token: bool = False
    tokens: bool = False


KINDS = {
    "zero": Kind(VALUE, "emits nothing", keeps=1.0),
    "mean": Kind(
        VALUE, "emits its mean output over the search split, a constant", keeps=1.0, arrays=(("constant", "d"),)
    ),
    "scale": Kind(VALUE, "emits its output times a number", keeps=1.0, most=math.inf, needs=True),
    "shift": Kind(VALUE, "emits its output plus a constant", most=math.inf, default=1.0, arrays=(("constant", "d"),)),
    "spectral": Kind(
        VALUE,
        "emits its output with each principal axis scaled",
        default=None,
        arrays=(("axes", "dd"), ("scales", "d"), ("centre", "d")),
    ),
    "cls_row": Kind(VALUE, "emits nothing for the class token alone", keeps=1.0, class_token=True, tokens=True),
    "uniform": Kind(ATTENTION, "attends to all tokens equally", keeps=1.0),
    "temperature": Kind(ATTENTION, "attends with its scores times a number", keeps=1.0, most=math.inf, needs=True),
    "cls": Kind(ATTENTION, "every token attends to the class token", keeps=1.0, class_token=True),
    "self": Kind(ATTENTION, "every token attends to itself", keeps=1.0, tokens=True),
    "keys": Kind(ATTENTION, "attends by keys alone (its queries are its keys)", default=None, tokens=True),
    "queries": Kind(ATTENTION, "attends by queries alone (its keys are its queries)", default=None, tokens=True),
}
CANONICAL = {("scale", 0.0): "zero", ("temperature", 0.0): "uniform"}  # one name for one thing


@dataclass(frozen=True)
class Letter:
    """One side of an edit.

    Arguments:
        name: one of `KINDS`.
        number: g or τ; None for kinds without one.
        arrays: (name, array), in the kind's order; empty while they are still to be attached (`mean`).

    Raises:
        HeadwiseError: an unknown name, a number out of its range, or arrays that do not belong to it.
    """

    name: str
    number: float | None = None
    arrays: tuple[tuple[str, Array], ...] = ()

    def __post_init__(self) -> None:
        kind = kind_of(self.name)
        number = kind.default if self.number is None else self.number
        if kind.needs and self.number is None:
            raise HeadwiseError(f"'{self.name}' needs a number, as in {self.name}(1.5).")
        if kind.default is None and number is not None:
            raise HeadwiseError(f"'{self.name}' takes no number; here it has {number}.")
        if number is not None:
            number = float(number) + 0.0  # no −0, which would be another key of the same edit
            if not 0.0 <= number <= min(kind.most, LARGEST):
                rule = "from 0 to 1" if kind.most == 1.0 else f"0 or more, and finite: at most {LARGEST:g}"
                raise HeadwiseError(f"The number of '{self.name}' is {number}; it has to be {rule}.")
        name = self.name
        if name == "zero" and number:  # a soft gate
            name = "scale"
        object.__setattr__(self, "name", CANONICAL.get((name, number), name))  # type: ignore[arg-type]
        object.__setattr__(self, "number", number)
        if self.arrays:
            self._check_arrays(kind)

    def _check_arrays(self, kind: Kind) -> None:
        names = [name for name, _ in self.arrays]
        if names != [name for name, _ in kind.arrays]:
            wanted = ", ".join(name for name, _ in kind.arrays) or "none"
            raise HeadwiseError(f"'{self.name}' has the arrays {', '.join(names)}; it takes: {wanted}.")
        width = self.arrays[0][1].shape[-1] if self.arrays[0][1].shape else 0
        for (name, array), (_, sides) in zip(self.arrays, kind.arrays, strict=True):
            if array.shape != (width,) * len(sides):
                raise HeadwiseError(
                    f"The array '{name}' of '{self.name}' has the shape {list(array.shape)}; it has to be "
                    f"{[width] * len(sides)}, as wide as the head."
                )

    @property
    def kind(self) -> Kind:
        """What is known of its kind."""
        return KINDS[self.name]

    @property
    def keeps(self) -> bool:
        """Whether it leaves every head as it is."""
        return self.number is not None and self.number == self.kind.keeps

    @property
    def bound(self) -> bool:
        """Whether its arrays are there, where it takes any."""
        return bool(self.arrays) or not self.kind.arrays

    @property
    def width(self) -> int | None:
        """d, of its arrays; None: it has none."""
        return self.arrays[0][1].shape[-1] if self.arrays else None

    def array(self, name: str) -> Array:
        """One of its arrays."""
        return dict(self.arrays)[name]

    def shrunk(self, alpha: float) -> Letter:
        """identity + alpha · (letter − identity); letters without a way there (`keys`) stay whole."""
        if alpha == 1:
            return self
        if self.name == "spectral":
            arrays = dict(self.arrays)
            scales = Array.of(1 + alpha * (arrays["scales"].numpy() - 1))
            return replace(self, arrays=tuple((k, scales if k == "scales" else a) for k, a in self.arrays))
        if self.name == "shift":
            number = 1 + alpha * ((self.number or 0.0) - 1)
            return Letter("shift", number, tuple((k, Array.of(alpha * a.numpy())) for k, a in self.arrays))
        if self.number is None or self.kind.keeps is None:
            return self
        name = "temperature" if self.name == "uniform" and self.number == 0 else self.name
        return Letter(name, 1 + alpha * (self.number - 1), self.arrays)

    def text(self, exact: bool = False) -> str:
        """As it is written; numbers with three digits, or so many that they read back bit for bit."""
        if self.number is None or self.number == (None if self.kind.needs else self.kind.default):
            return self.name
        return f"{self.name}({self.number!r})" if exact else f"{self.name}({self.number:.3g})"

    @cached_property
    def order(self) -> tuple:
        """Sorts letters: name, number, arrays."""
        return (self.name, -1.0 if self.number is None else self.number, tuple(a.digest for _, a in self.arrays))


@dataclass(frozen=True)
class Edit:
    """What is done to one head; without letters it is kept as it is.

    Raises:
        HeadwiseError: a letter on the wrong side.
    """

    attention: Letter | None = None
    value: Letter | None = None

    def __post_init__(self) -> None:
        for side in (ATTENTION, VALUE):
            letter = getattr(self, side)
            if letter is not None and letter.kind.side != side:
                raise HeadwiseError(f"'{letter.name}' edits a head's {letter.kind.side} side, not its {side} side.")
            if letter is not None and letter.keeps:
                object.__setattr__(self, side, None)

    @classmethod
    def parse(cls, text: str) -> Edit:
        """Read what `str(edit)` prints: `keep`, `zero`, `scale(1.42)`, `temperature(0.6)+scale(0.9)`.

        Raises:
            HeadwiseError: another form, an unknown name, a number out of its range, or two letters of one side.
        """
        if text.strip() in ("keep", ""):
            return KEEP
        sides: dict[str, Letter] = {}
        for part in re.split(r"\+(?![^(]*\))", text):  # not the plus of 1e+22
            letter = _letter(part.strip(), text)
            if letter.kind.side in sides:
                raise HeadwiseError(
                    f"{text!r} edits the {letter.kind.side} side twice. A head carries one letter of each side: "
                    f"{names_of(ATTENTION)}; and {names_of(VALUE)}."
                )
            sides[letter.kind.side] = letter
        return cls(**sides)

    @property
    def letters(self) -> tuple[Letter, ...]:
        """Its one or two letters, the attention side first."""
        return tuple(letter for letter in (self.attention, self.value) if letter is not None)

    @property
    def keeps(self) -> bool:
        """Whether it leaves the head as it is."""
        return self.attention is None and self.value is None

    @property
    def gate(self) -> float | None:
        """The number of its only letter; 1 where the head is kept, None where no one number says what is done."""
        if self.keeps:
            return 1.0
        return self.letters[0].number if len(self.letters) == 1 else None

    @property
    def suppresses(self) -> bool:
        """Whether it only takes away: one letter whose number is below the one that keeps the head."""
        return (
            len(self.letters) == 1
            and self.letters[0].kind.keeps is not None
            and (self.letters[0].number or 0.0) < self.letters[0].kind.keeps
        )

    @property
    def removes(self) -> bool:
        """Whether nothing of the head's own output is left (`zero`, `mean`)."""
        return self.value is not None and self.value.name in ("zero", "mean") and self.value.number == 0.0

    def shrunk(self, alpha: float) -> Edit:
        """identity + alpha · (edit − identity), letter by letter."""
        return Edit(*(None if one is None else one.shrunk(alpha) for one in (self.attention, self.value)))

    def text(self, exact: bool = False) -> str:
        """As it is written; see `Letter.text`."""
        return "+".join(letter.text(exact) for letter in self.letters) or "keep"

    @cached_property
    def order(self) -> tuple:
        """Sorts edits; the kept head is the first."""
        return tuple(() if letter is None else letter.order for letter in (self.attention, self.value))

    def __str__(self) -> str:
        return self.text()


KEEP = Edit()


def kind_of(name: str) -> Kind:
    """
    Raises:
        HeadwiseError: no such letter.
    """
    if name not in KINDS:
        raise HeadwiseError(
            f"{name!r} is not an edit of a head. There are, of how it attends: {names_of(ATTENTION)}; "
            f"of what it emits: {names_of(VALUE)}."
        )
    return KINDS[name]


def names_of(side: str) -> str:
    """The letters of one side, for messages."""
    return ", ".join(name for name, kind in KINDS.items() if kind.side == side)


def canonical(text: str) -> str:
    """An edit's one way of being written, exact: `scale(0)` is `zero`.

    Raises:
        HeadwiseError: it is not an edit, one that does nothing, or one whose arrays have to be learned.
    """
    edit = Edit.parse(text)
    if learned := [letter.name for letter in edit.letters if letter.kind.arrays and letter.name != "mean"]:
        raise HeadwiseError(
            f"{learned[0]!r} is learned of every head, not chosen: headwise refine learns it, as a rung (--rungs). Here give "
            "another edit, such as zero or uniform."
        )
    if edit.keeps:
        raise HeadwiseError(f"{text!r} leaves every head as it is. Write an edit, such as zero or scale(1.5).")
    return edit.text(exact=True)


def unbound(edits: Iterable[str]) -> bool:
    """Whether one of the edits, as texts, needs constants from data (`mean`)."""
    return any(not letter.bound for text in edits for letter in Edit.parse(text).letters)


def _letter(part: str, whole: str) -> Letter:
    match = _FORM.match(part)
    if match is None:
        raise HeadwiseError(f"{whole!r} is not an edit. Write zero, scale(1.42) or temperature(0.6)+scale(0.9).")
    name, number = match.groups()
    kind_of(name)
    try:
        return Letter(name, None if number is None else float(number))
    except ValueError as error:
        raise HeadwiseError(f"{number!r} in {whole!r} is not a number.") from error
