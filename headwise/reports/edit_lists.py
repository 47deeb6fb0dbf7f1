"""Lists of edits as texts: short ones whole, long ones cut, or told by what they differ in from one that stands above.

In: `str(mask)`, as results hold it. Out: text for people.
"""

from __future__ import annotations

FEW = 6  # edits that are named in a sentence


def shortened(mask: str) -> str:
    """Edits as a text; of many the first three, and how many more."""
    return _cut(mask.split(", "))


def against(mask: str, first: str, name: str = "the chosen") -> str:
    """A long list as its difference from another list, where that is shorter: `the chosen, + L3.H2=zero, − L1.H0`.

    A head that both edit otherwise comes with the edit that it has here.

    Arguments:
        mask: the list to tell.
        first: the list that the reader knows.
        name: what that one is called.
    """
    own, other = _edits(mask), _edits(first)
    added = [f"+ {head}={edit}" for head, edit in own.items() if other.get(head) != edit]
    gone = [f"− {head}" for head in other if head not in own]
    if mask == first or len(own) <= FEW or len(added) + len(gone) >= len(own):
        return shortened(mask)
    return f"{name}, {_cut([*added, *gone])}"


def _edits(mask: str) -> dict[str, str]:
    """Head → edit."""
    pairs = (item.partition("=") for item in mask.split(", ") if "=" in item)
    return {head: edit for head, _, edit in pairs}


def _cut(parts: list[str]) -> str:
    return ", ".join(parts) if len(parts) <= FEW else f"{', '.join(parts[:3])} and {len(parts) - 3} more"
