"""A model's JSON files, read before any library acts on them: bounded in size, depth and numbers, and without code.

In: a file or a folder. Out: its JSON object, or a refusal. What the values mean is left to the library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwise.errors import HeadwiseError, cause
from headwise.reading import check_regular

FILES = (
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json",
    "special_tokens_map.json", "open_clip_config.json", "modules.json", "config_sentence_transformers.json",
)  # fmt: skip
LARGEST_FILE = 32 * 2**20  # bytes
DEEPEST = 32  # nested objects and lists; the libraries walk them by recursion
# No model comes near these. A larger one is a slip or an attempt to fill the memory.
LAYERS, PIXELS, WIDTH, ROWS = 1024, 4096, 2**17, 2**24
LEAST_CROP = 0.05  # of timm: pictures are made larger by its inverse before the crop
LIMITS = {
    **dict.fromkeys(("num_hidden_layers", "layers", "depth", "num_layers", "n_layers"), LAYERS),
    **dict.fromkeys(("image_size", "img_size", "input_size", "size", "crop_size", "pad_size", "height"), PIXELS),
    **dict.fromkeys(("shortest_edge", "longest_edge", "max_height", "max_width", "patch_size"), PIXELS),
    **dict.fromkeys(("hidden_size", "width", "embed_dim", "projection_dim", "intermediate_size"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "heads", "num_heads", "project_dim", "projection_size"), WIDTH),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "context_length"), ROWS),
}
PROCESSOR_LIMITS = {**LIMITS, "width": PIXELS}


def read_config(path: str | Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        HeadwiseError: not JSON, not an object, too large, too deep, or with a size that no model has.
    """
    path = Path(path)
    try:
        check_regular(path)
        if path.stat().st_size > LARGEST_FILE:
            raise HeadwiseError(f"{path} has {path.stat().st_size:,} bytes, too many for a configuration.")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise HeadwiseError(f"{path} is not readable JSON: {cause(error)}. Get the file anew.") from error
    if not isinstance(content, dict | list):
        raise HeadwiseError(f"{path} holds {type(content).__name__}, not a configuration.")
    check_values(content, str(path), processor="processor" in path.name)
    return content if isinstance(content, dict) else {"": content}


def check_values(content: Any, where: str, *, processor: bool = False) -> None:
    """
    Arguments:
        content: what a configuration holds.
        where: its file, for messages.
        processor: of a processor, in which a width is of a picture.

    Raises:
        HeadwiseError: nested too deep, or with a size that no model has.
    """
    limits = PROCESSOR_LIMITS if processor else LIMITS
    for depth, key, value in _walk(content):
        if depth > DEEPEST:
            raise HeadwiseError(f"{where} is nested more than {DEEPEST} levels deep, which no configuration is.")
        if key == "crop_pct" and isinstance(value, int | float) and value < LEAST_CROP:
            raise HeadwiseError(f"{where}: crop_pct is {value}; pictures would grow by its inverse. Correct the file.")
        most = limits.get(key, 1e300)
        if isinstance(value, int | float) and not isinstance(value, bool) and not abs(value) <= most:
            shown = f"{value:,}" if abs(value) < 1e15 else f"{float(value):.3g}" if abs(value) < 1e300 else "enormous"
            raise HeadwiseError(f"{where}: {key} is {shown}; no model has more than {most:,}. Correct the file.")


def check_folder(folder: str | Path) -> None:
    """
    Raises:
        HeadwiseError: one of a model folder's configurations is broken or hostile.
    """
    for name in FILES:
        if (Path(folder) / name).is_file():
            read_config(Path(folder) / name)


def _walk(content: Any) -> Iterator[tuple[int, str, Any]]:
    """Every value with its depth and the nearest key above it, without recursion."""
    waiting: list[tuple[int, str, Any]] = [(1, "", content)]
    while waiting:
        depth, key, value = waiting.pop()
        yield depth, key, value
        if depth > DEEPEST:
            continue
        if isinstance(value, dict):
            waiting += [(depth + 1, str(name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(depth + 1, key, inner) for inner in value]
