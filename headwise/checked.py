"""Checksums of everything that headwise writes to read back as numbers: a damaged byte is noticed, never believed.

They are for accidents (a disk, a transfer), not against forgery. What is damaged is made again where that is
possible, and refused with a sentence where it is not; who reads decides.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwise.reading import check_regular

BLOCK = 1 << 24
ENTRY = "headwise"  # the one entry of metadata: safetensors writes several in no fixed order
SEAL = "checksum"  # the field of a JSON file of results
DEFLATE = 1032  # zlib makes at most so many bytes out of one


# what reading results raises that somebody changed by hand
MISSHAPEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration, RecursionError)


class Damaged(ValueError):
    """What was read is not what was written."""


def checksum(values: Iterable[str | bytes | float | int | None]) -> int:
    """CRC-32 of plain values in their order; the kind and the length of each count.

    A float and SQLite's reading of it count the same: −0.0 is 0.0, and what is not a number is None.
    """
    crc = 0
    for value in values:
        if value is None or value != value:  # not a number
            body, kind = b"", b"n"
        elif isinstance(value, str):
            body, kind = value.encode("utf-8", "surrogatepass"), b"s"
        elif isinstance(value, bytes):
            body, kind = value, b"b"
        elif isinstance(value, float):
            body, kind = struct.pack("<d", value + 0.0), b"f"
        else:
            body, kind = str(value).encode(), b"i"
        crc = zlib.crc32(body, zlib.crc32(kind + struct.pack("<q", len(body)), crc))
    return crc


def file_checksum(path: Path) -> int:
    """CRC-32 of a file's content, read in blocks."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
    return crc


def array_checksum(array: np.ndarray) -> int:
    """CRC-32 of an array's values."""
    return zlib.crc32(np.ascontiguousarray(array).data.cast("B"))


def dump_json(value: object) -> bytes:
    """A value as JSON after its own checksum."""
    body = json.dumps(value).encode()
    return f"{zlib.crc32(body)}\n".encode() + body


def load_json(data: bytes) -> Any:
    """What `dump_json` wrote.

    Raises:
        Damaged: something else.
    """
    crc, _, body = data.partition(b"\n")
    try:
        if int(crc) != zlib.crc32(body):
            raise Damaged("the checksum differs")
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Damaged(str(error)) from error


# ---- results


def sealed(results: Mapping[str, Any]) -> dict[str, Any]:
    """Results with their checksum as the last field: of what JSON gives back, whatever the spaces and the order."""
    content = {key: value for key, value in results.items() if key != SEAL}
    return {**content, SEAL: _of_json(json.loads(json.dumps(content)))}


def read_results(path: Path) -> Any:
    """What a JSON file of results holds, without its checksum. A file that people or an older version wrote has none
    and is read as it is.

    Raises:
        OSError: it cannot be read.
        Damaged: no JSON, or something else than was written.
    """
    try:
        check_regular(path)
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"it is damaged: {error}") from error
    if not isinstance(found, dict) or SEAL not in found:
        return found
    crc = found.pop(SEAL)
    if crc != _of_json(found):
        raise Damaged(
            "its checksum differs, so something in it is damaged or was changed; if you changed it yourself, delete its "
            f'field "{SEAL}"'
        )
    return found


def _of_json(value: object) -> int:
    return checksum([json.dumps(value, sort_keys=True)])


def inflate(data: bytes, size: int) -> bytes:
    """Decompress to exactly `size` bytes; no more than that is ever held.

    Raises:
        Damaged: another size, or not zlib's.
    """
    if not 0 <= size <= DEFLATE * len(data):
        raise Damaged(f"{size} bytes cannot come out of {len(data)}")
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, size + 1)  # at most one byte too many
    except zlib.error as error:
        raise Damaged(str(error)) from error
    if len(raw) != size or not stream.eof or stream.unused_data:
        raise Damaged(f"{size} bytes were announced")
    return raw


# ---- tensors


def metadata(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, object]) -> dict[str, str]:
    """The metadata of a safetensors file: facts, and a checksum of them and of every tensor."""
    text = json.dumps(facts, sort_keys=True)
    return {ENTRY: json.dumps({"crc32": _of_tensors(tensors, text), "facts": text})}


def dump_tensors(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, object]) -> bytes:
    """A safetensors file with a checksum inside; equal content gives equal bytes.

    Arguments:
        tensors: contiguous, on the CPU.
        facts: JSON values.
    """
    from safetensors.torch import save

    return save(dict(tensors), metadata(tensors, facts))


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the facts of a file of `dump_tensors`. safetensors itself bounds shapes by the file's size.

    Raises:
        FileNotFoundError: no such file.
        Damaged: anything else than what was written.
    """
    from safetensors import safe_open

    if not Path(path).exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[ENTRY])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if about["crc32"] != _of_tensors(tensors, about["facts"]):
            raise Damaged("the checksum differs")
        return tensors, json.loads(about["facts"])
    except Exception as error:  # safetensors raises its own kinds, and odd metadata many others
        raise Damaged(str(error) or type(error).__name__) from error


def _of_tensors(tensors: Mapping[str, torch.Tensor], facts: str) -> int:
    crc = checksum([facts])
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc
