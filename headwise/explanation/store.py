"""Large arrays in one safetensors file that is filled in place, so that memory does not grow with heads or images.

In: names and shapes. Out: memory maps to write to, and the finished file under its own name. It does not know what
the arrays are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwise.errors import HeadwiseError
from headwise.files import cannot_write

DTYPES = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
PART = ".part"  # until all is there, under a name that nobody takes for the whole


@dataclass(frozen=True)
class Arrays:
    """Named arrays on disk, memory-mapped.

    Arguments:
        path: the finished file.
        shapes: name → (`F16` or `F32`, shape).
    """

    path: Path
    shapes: Mapping[str, tuple[str, tuple[int, ...]]]

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return self.path.with_name(self.path.name + PART)

    def begin(self) -> bool:
        """Make the file at its full size, or take up the one that an interrupted or finished run left.

        Returns:
            Whether one was there.

        Raises:
            HeadwiseError: the disk is full, or the folder cannot be written.
        """
        header = self._header()
        for path in (self.part, self.path):
            if path.is_file() and path.stat().st_size == self._size:
                with path.open("rb") as file:
                    if file.read(len(header)) == header:
                        os.replace(path, self.part)
                        return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.part.open("wb") as file:
                file.write(header)
                if hasattr(os, "posix_fallocate"):  # a full disk is found now, not in the midst of a mapped write
                    os.posix_fallocate(file.fileno(), 0, self._size)
                else:
                    file.truncate(self._size)
        except OSError as error:
            self.part.unlink(missing_ok=True)
            raise cannot_write(self.path.parent, error) from error
        return False

    def open(self, name: str, mode: str = "r+") -> np.memmap:
        """An array of the unfinished file.

        Arguments:
            mode: as `numpy.memmap` takes it.

        Raises:
            HeadwiseError: the file cannot be read.
        """
        path = self.part if self.part.exists() else self.path
        kind, shape = self.shapes[name]
        start = len(self._header()) + self._places()[name][0]
        try:
            return np.memmap(path, DTYPES[kind], mode, start, shape)  # type: ignore[call-overload]
        except OSError as error:
            raise HeadwiseError(f"Cannot read {path}: {error.strerror}. Delete it; it is made again.") from error

    def finish(self) -> None:
        """Give the file its name."""
        try:
            os.replace(self.part, self.path)
        except OSError as error:
            raise cannot_write(self.path.parent, error) from error

    @property
    def _size(self) -> int:
        return len(self._header()) + max(stop for _, stop in self._places().values())

    def _places(self) -> dict[str, tuple[int, int]]:
        places, start = {}, 0
        for name, (kind, shape) in self.shapes.items():
            stop = start + int(np.prod(shape, dtype=np.int64)) * DTYPES[kind].itemsize
            places[name], start = (start, stop), stop
        return places

    def _header(self) -> bytes:
        """The length of the JSON that follows (8 bytes), then where each array lies: safetensors' own format."""
        facts = {
            name: {"dtype": kind, "shape": list(shape), "data_offsets": list(self._places()[name])}
            for name, (kind, shape) in self.shapes.items()
        }
        text = json.dumps(facts).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text
