"""The ladder's measurements as this repository keeps them: docs/ladder.md is made again, and continued, without the hours.

    python benchmarks/kept.py --work WORK     what benchmarks/ladder.py measured, into benchmarks/kept/

One archive a size; an entry is the file of a method, domain and seed. Equal measurements give equal bytes.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Annotated

import typer

from headwise.files import write_files

KEPT = Path(__file__).resolve().parent / "kept"


def restore(work: Path) -> int:
    """Put what is kept where `ladder.py` looks for it, unless something is there; how many files."""
    count = 0
    for archive in sorted(KEPT.glob("ladder-*.tar.xz")):
        with tarfile.open(archive) as entries:
            for entry in entries:
                path, file = work / "ladder" / entry.name, entries.extractfile(entry)
                if file and not path.exists():
                    write_files(path.parent, {path.name: file.read()})
                    count += 1
    return count


def keep(work: Path, size: int) -> int:
    """Archive what WORK has of a size; how many files."""
    folder, stream = work / "ladder", io.BytesIO()
    paths = sorted(folder.glob(f"*-{size}-seed*/**/*.safetensors"))
    with tarfile.open(fileobj=stream, mode="w:xz", preset=9, format=tarfile.USTAR_FORMAT) as entries:
        for path in paths:
            about = tarfile.TarInfo(path.relative_to(folder).as_posix())  # of 1970 and nobody: the same bytes every day
            about.size = path.stat().st_size
            entries.addfile(about, io.BytesIO(path.read_bytes()))
    if paths:
        write_files(KEPT, {f"ladder-{size}.tar.xz": stream.getvalue()})
    return len(paths)


def main(work: Annotated[Path, typer.Option(help="Where benchmarks/ladder.py keeps its measurements.")]) -> None:
    print(f"{restore(work)} files came from {KEPT.name}/ first")
    for size in (200, 40):
        print(f"{size} search images: {keep(work, size)} files kept")


if __name__ == "__main__":
    typer.run(main)
