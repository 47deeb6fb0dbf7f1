"""Where an option stands in `--help`: panels, and the order in them.

In: an option's name. Out: its panel. The first panel, with what people give most, has typer's own title: `--help` is
in it, and it comes first.
"""

from __future__ import annotations

PANELS = {
    "Options": (
        "out", "mask", "edits", "to", "base", "on", "operator", "rungs", "budget", "max_minutes", "dry_run", "keep_domain",
        "against", "prune", "explain", "config", "as_json",
    ),
    "What to maximise": ("fitness", "templates", "class_names", "distractors", "anchor", "anchor_weight", "max_loss"),
    "Search": (
        "strategy", "no_sweep", "first_order", "exact", "max_heads", "width", "population", "generations", "patience", "tournament",
        "elites", "flip", "gates", "learning_rate", "epochs", "batch", "penalty", "keep_soft", "recompute", "autocast",
        "repeats",
    ),
    "Choice": (
        "choose", "no_refit", "finalists", "level", "controls", "seed", "split_by", "only_split", "allow_searched", "check_weights", "by",
    ),
    "Data": (
        "image", "caption", "label", "group", "split_column", "images", "remote", "skip_bad", "equal_captions",
        "means_from", "texts", "most_images",
    ),
    "Model": ("image_size", "mean", "std", "interpolation", "resize_mode", "context_length", "processor"),
    "Machine": ("device", "dtype", "chunk", "cache_size", "workers", "ray", "mixed_workers", "profile", "port"),
    "Output": ("precision", "most_loss", "licence", "per_query", "write", "overwrite", "quiet", "verbose", "log_file"),
}  # fmt: skip
FIRST = next(iter(PANELS))
PLACES = {name: (panel, place) for panel, names in PANELS.items() for place, name in enumerate(names)}
_ORDER = {panel: number for number, panel in enumerate(PANELS)}


def panel_of(name: str) -> str | None:
    """The panel of an option; None for the first, typer's own."""
    panel = PLACES[name][0] if name in PLACES else FIRST
    return None if panel == FIRST else panel


def place_of(name: str) -> tuple[int, int]:
    """What options are ordered by; those of no panel come last."""
    panel, place = PLACES.get(name, ("", 0))
    return _ORDER.get(panel, len(_ORDER)), place
