"""Find the attention heads that hurt a CLIP image encoder on your data, suppress them, prove that it helped.

    import headwise

    found = headwise.refine("hf:openai/clip-vit-base-patch32", "pairs.csv", "refined/")
    print(found.mask, found.results["test"])

The public names are those in `__all__`; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from headwise.version import __version__

if TYPE_CHECKING:
    from headwise.applied.live import apply
    from headwise.data.read import read
    from headwise.edits.heads import Grid
    from headwise.edits.mask import Mask
    from headwise.errors import HeadwiseError
    from headwise.jobs.evaluate import evaluate
    from headwise.jobs.explain import explain
    from headwise.jobs.export import export
    from headwise.jobs.merge import merge
    from headwise.jobs.refine import refine
    from headwise.jobs.steps.settings import Settings
    from headwise.jobs.sweep import sweep
    from headwise.jobs.verify import verify
    from headwise.towers import load, wrap

_WHERE = {
    "Grid": "headwise.edits.heads",
    "HeadwiseError": "headwise.errors",
    "Mask": "headwise.edits.mask",
    "Settings": "headwise.jobs.steps.settings",
    "apply": "headwise.applied.live",
    "evaluate": "headwise.jobs.evaluate",
    "explain": "headwise.jobs.explain",
    "export": "headwise.jobs.export",
    "load": "headwise.towers",
    "merge": "headwise.jobs.merge",
    "read": "headwise.data.read",
    "refine": "headwise.jobs.refine",
    "sweep": "headwise.jobs.sweep",
    "verify": "headwise.jobs.verify",
    "wrap": "headwise.towers",
}

__all__ = [
    "Grid",
    "HeadwiseError",
    "Mask",
    "Settings",
    "__version__",
    "apply",
    "evaluate",
    "explain",
    "export",
    "load",
    "merge",
    "read",
    "refine",
    "sweep",
    "verify",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value
