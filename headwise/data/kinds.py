"""What a file is that is not what was expected, by its first bytes: a download that failed, an archive, a placeholder."""

from __future__ import annotations

KINDS = (
    (b"version https://git-lfs", "a placeholder of Git LFS; fetch the file itself with git lfs pull"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook; unpack it, or save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the table as CSV"),
    (b"\x1f\x8b", "compressed with gzip; unpack it"),
    (b"BZh", "compressed with bzip2; unpack it"),
    (b"\xfd7zXZ", "compressed with xz; unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it"),
    (b"PAR1", "a Parquet file; let its name end in .parquet"),
)
PAGES = (b"<!doctype html", b"<html", b"<?xml", b"<svg")


def other_kind(head: bytes) -> str | None:
    """What a file with these first bytes is and what to do about it, None if nothing is known against it."""
    for start, text in KINDS:
        if head.startswith(start):
            return text
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith(PAGES):
        return "a web page or another XML file, perhaps a server's error message; fetch it again"
    return None
