"""Find the attention heads that hurt a CLIP image encoder on your data, suppress them, prove that it helped.

    import headwise

    found = headwise.refine("hf:openai/clip-vit-base-patch32", "pairs.csv", "refined/")
    print(found.mask, found.results["test"])

The public names are those in `__all__`; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwise.applied.live import apply
    from headwise.data.read import read
    from headwise.edits.mask import Grid, Mask
    from headwise.errors import HeadwiseError
    from headwise.jobs.measure import evaluate, merge, sweep
    from headwise.jobs.steps.settings import Settings
    from headwise.jobs.verbs import refine
    from headwise.towers import load, wrap

__version__ = "0.1.0"

_WHERE = {
    "Grid": "headwise.edits.mask",
    "HeadwiseError": "headwise.errors",
    "Mask": "headwise.edits.mask",
    "Settings": "headwise.jobs.steps.settings",
    "apply": "headwise.applied.live",
    "evaluate": "headwise.jobs.measure",
    "load": "headwise.towers",
    "merge": "headwise.jobs.measure",
    "read": "headwise.data.read",
    "refine": "headwise.jobs.verbs",
    "sweep": "headwise.jobs.measure",
    "wrap": "headwise.towers",
}

__all__ = [
    "Grid",
    "HeadwiseError",
    "Mask",
    "Settings",
    "apply",
    "evaluate",
    "load",
    "merge",
    "read",
    "refine",
    "sweep",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
