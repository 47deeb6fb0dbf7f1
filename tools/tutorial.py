"""The pictures of docs/tutorial.md: parts of the picture of the demo's report, docs/demo/report.webp (tools/screenshot.py).

python tools/tutorial.py             writes docs/demo/tutorial-*.png; look at them when the report's picture is made anew
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parents[1] / "docs" / "demo"
PARTS = {"change": (40, 120, 1000, 1075), "heads": (40, 1105, 1140, 1570)}  # left, upper, right, lower
MOST = 1_000_000  # bytes of a picture


def main() -> None:
    """Cut them out."""
    whole = Image.open(PICTURES / "report.webp").convert("RGB")
    for name, box in PARTS.items():
        path = PICTURES / f"tutorial-{name}.png"
        whole.crop(box).quantize(256).save(path, optimize=True)
        assert path.stat().st_size < MOST, path
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
