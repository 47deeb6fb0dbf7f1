"""Put what a benchmark prints between two marks of a document.

    python benchmarks/fronts.py … | python benchmarks/into_docs.py docs/front.md kept

replaces what lies between the lines `<!-- measured: kept -->` and `<!-- end -->`.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    path, name = Path(sys.argv[1]), sys.argv[2]
    text, printed = path.read_text(encoding="utf-8"), sys.stdin.read().strip()
    mark, end = f"<!-- measured: {name} -->\n", "<!-- end -->"
    before, found, rest = text.partition(mark)
    if not found or end not in rest or not printed:
        sys.exit(f"{path} has no block {name!r}, or nothing was printed; nothing was changed.")
    after = rest[rest.index(end) :]
    path.write_text(f"{before}{mark}\n{printed}\n\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
