"""Find the attention heads of a CLIP image encoder that hurt on your data or fall short, edit them, prove that it helped.

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
    from headwise.jobs.compare import compare
    from headwise.jobs.evaluate import evaluate
    from headwise.jobs.explain import explain
    from headwise.jobs.export import export
    from headwise.jobs.front import front
    from headwise.jobs.inspect import inspect
    from headwise.jobs.merge import merge
    from headwise.jobs.refine import refine
    from headwise.jobs.report import report
    from headwise.jobs.steps.contest_settings import CompareSettings
    from headwise.jobs.steps.front_settings import FrontSettings
    from headwise.jobs.steps.opening import Machine
    from headwise.jobs.steps.settings import Settings
    from headwise.jobs.steps.tasks import Goal
    from headwise.jobs.sweep import sweep
    from headwise.jobs.take import take
    from headwise.jobs.transfer import transfer
    from headwise.jobs.verify import verify
    from headwise.towers import load, wrap

_WHERE = {
    "CompareSettings": "headwise.jobs.steps.contest_settings",
    "FrontSettings": "headwise.jobs.steps.front_settings",
    "Goal": "headwise.jobs.steps.tasks",
    "Grid": "headwise.edits.heads",
    "HeadwiseError": "headwise.errors",
    "Machine": "headwise.jobs.steps.opening",
    "Mask": "headwise.edits.mask",
    "Settings": "headwise.jobs.steps.settings",
    "apply": "headwise.applied.live",
    "compare": "headwise.jobs.compare",
    "evaluate": "headwise.jobs.evaluate",
    "explain": "headwise.jobs.explain",
    "front": "headwise.jobs.front",
    "inspect": "headwise.jobs.inspect",
    "export": "headwise.jobs.export",
    "load": "headwise.towers",
    "merge": "headwise.jobs.merge",
    "read": "headwise.data.read",
    "refine": "headwise.jobs.refine",
    "report": "headwise.jobs.report",
    "sweep": "headwise.jobs.sweep",
    "take": "headwise.jobs.take",
    "transfer": "headwise.jobs.transfer",
    "verify": "headwise.jobs.verify",
    "wrap": "headwise.towers",
}

__all__ = [
    "CompareSettings",
    "FrontSettings",
    "Goal",
    "Grid",
    "HeadwiseError",
    "Machine",
    "Mask",
    "Settings",
    "__version__",
    "apply",
    "compare",
    "evaluate",
    "explain",
    "export",
    "front",
    "inspect",
    "load",
    "merge",
    "read",
    "refine",
    "report",
    "sweep",
    "take",
    "transfer",
    "verify",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'headwise' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
