"""Writes the prompt templates and ImageNet class names that headwise ships, from open_clip's own lists.

    python recipes/zero_shot/lists.py

open_clip keeps templates as functions of a class name; here each becomes a text with `{c}` in its place. Run again
to see whether a newer open_clip changed a list: git shows what differs.
"""

import json
from pathlib import Path

from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

OUT = Path(__file__).parents[2] / "headwise" / "data_files"
OWN = {
    "siglip": ["This is a photo of {c}."],  # the one that transformers' zero-shot pipeline uses
    "plain": ["a photo of a {c}."],
}


def main() -> None:
    templates = {
        "openai80": [template("{c}") for template in OPENAI_IMAGENET_TEMPLATES],
        "openai7": [template("{c}") for template in SIMPLE_IMAGENET_TEMPLATES],
    }
    write("templates", templates | OWN)
    write("imagenet_classes", list(IMAGENET_CLASSNAMES))


def write(name: str, value: list | dict) -> None:
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(value)} entries")


if __name__ == "__main__":
    main()
