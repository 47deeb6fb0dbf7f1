"""Records of GCompris' photographs and drawings, which have a licence per file and lie in Qt resource archives."""

import fnmatch
import io
import re
import struct
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
from common import Paths, Record, sources, words
from emoji_labels import EmojiIndex
from names import slug, split_camel
from PIL import Image

from headwise.errors import HeadwiseError

COPYRIGHT = "gcompris-qt-data/usr/share/doc/gcompris-qt-data/copyright"
ARCHIVES = "gcompris-qt-data/usr/share/gcompris-qt/rcc"
COMPRESSED, DIRECTORY, ZSTD = 1, 2, 4  # flags of an entry


def read_rcc(path: Path) -> dict[str, bytes]:
    """Every file in a Qt resource archive, by its path; entries packed with Zstandard are skipped.

    The archive is a tree of fixed-size entries, a heap of names (UTF-16) and a heap of contents, all big endian.

    Raises:
        HeadwiseError: the file is no such archive.
    """
    blob = path.read_bytes()
    if blob[:4] != b"qres":
        raise HeadwiseError(f"{path} is not a Qt resource archive; delete the download and run `prepare.py fetch`")
    version, tree, contents, names = struct.unpack_from(">IIII", blob, 4)
    entry_size = 22 if version >= 2 else 14
    files = {}

    def walk(entry: int, parent: str) -> None:
        offset = tree + entry * entry_size
        name_offset, flags = struct.unpack_from(">IH", blob, offset)
        path = ""
        if entry:  # the root has no name
            start = names + name_offset
            length = struct.unpack_from(">H", blob, start)[0]
            path = f"{parent}/{blob[start + 6 : start + 6 + 2 * length].decode('utf-16-be')}"
        if flags & DIRECTORY:
            count, first = struct.unpack_from(">II", blob, offset + 6)
            for child in range(first, first + count):
                walk(child, path)
        elif not flags & ZSTD:
            start = contents + struct.unpack_from(">I", blob, offset + 10)[0]
            size = struct.unpack_from(">I", blob, start)[0]
            content = blob[start + 4 : start + 4 + size]
            files[path] = zlib.decompress(content[4:]) if flags & COMPRESSED else content

    walk(0, "")
    return files


def licence_rules(copyright_text: str) -> list[tuple[str, str, str]]:
    """(file pattern, licence, holder) of a Debian copyright file; the last pattern that fits a file decides."""
    rules = []
    for stanza in re.split(r"\n\s*\n", copyright_text):
        files = re.search(r"^Files:(.*?)(?=^\S)", stanza, re.S | re.M)
        licence = re.search(r"^License:\s*(.+)$", stanza, re.M)
        holder = re.search(r"^Copyright:\s*(.+)$", stanza, re.M)
        if files and licence:
            who = holder.group(1).strip() if holder else ""
            rules += [(pattern, licence.group(1).strip(), who) for pattern in files.group(1).split()]
    return rules


def is_photograph(content: bytes) -> bool:
    """Whether a bitmap fills its frame: opaque, and most of its border is not near white."""
    image = Image.open(io.BytesIO(content)).convert("RGBA").resize((64, 64))
    pixels = np.asarray(image).astype(int)  # (64, 64, 4)
    if (pixels[..., 3] < 200).mean() > 0.05:
        return False
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])[:, :3]  # (256, 3)
    return bool((border.min(1) < 235).mean() > 0.5)


def gcompris_records(paths: Paths, index: EmojiIndex) -> tuple[list[Record], Counter[str]]:
    """Records of the pictures of things under a free licence that is not the GPL.

    Returns:
        The records, and how many files were left out why.
    """
    rules = licence_rules((paths.debian / COPYRIGHT).read_text(encoding="utf-8"))
    records, left_out = [], Counter()
    for archive in sorted((paths.debian / ARCHIVES).glob("*.rcc"), key=str):
        for path, content in read_rcc(archive).items():
            if not path.endswith((".webp", ".jpg", ".png", ".svg")):
                continue
            name = path.split("/gcompris/", 1)[-1]
            licence, author = _licence(name, rules)
            reason = _reason_to_skip(name, licence)
            caption = re.sub(r"\s*\d+$", "", re.sub("[_-]", " ", split_camel(PurePosixPath(name).stem))).strip().lower()
            if not reason and len(caption) < 3:
                reason = "no name"
            if reason:
                left_out[reason] += 1
                continue
            photo = path.endswith((".webp", ".jpg")) and is_photograph(content)
            source = ("rcc", f"{ARCHIVES}/{archive.name}", path)
            record = _record(name, caption, licence, author, "photo" if photo else "clipart", source, index)
            records.append(record)
    return records, left_out


def _licence(name: str, rules: list[tuple[str, str, str]]) -> tuple[str, str]:
    """Licence and holder; the copyright file still has the names from before the conversion to WebP."""
    spellings = [name]
    if name.endswith(".webp"):
        spellings += [name[:-5] + ending for ending in (".jpg", ".png", ".jpeg", ".JPG")]
    found = ("none", "")
    for pattern, licence, holder in rules:
        if any(fnmatch.fnmatchcase(spelling, pattern) for spelling in spellings):
            found = (licence, holder)
    return found


def _activity(name: str) -> str:
    return name.split("/")[2] if name.startswith("src/activities") else "core"


def _reason_to_skip(name: str, licence: str) -> str:
    rules = sources()["photos"]
    if not re.match(rules["licence"], licence):
        return licence
    if _activity(name) not in words("photos", "activities"):
        return f"activity {_activity(name)}"
    if re.search(rules["letters_or_icons"], name):
        return "letters/activity icons"
    if re.search(rules["interface"], name):
        return "ui"
    return "piece/ui" if re.search(rules["pieces"], name) else ""


def _record(
    name: str, caption: str, licence: str, author: str, kind: str, source: tuple[str, ...], index: EmojiIndex
) -> Record:
    emoji = index.named(caption)
    folder = name.split("/")[-2]
    by_accident = caption in words("photos", "colour_words")
    coarse = emoji.coarse if emoji and not by_accident else None
    return Record(
        set="gcompris",
        licence=licence,
        author=author,
        palette=True,
        name=name,
        captions=[caption],
        keywords=[] if folder in words("photos", "nameless_folders") else [folder.replace("_", " ")],
        concept=slug(emoji.base_label) if emoji else slug(caption),
        category=f"{_activity(name)}/{folder}",
        subcategory=emoji.subgroup if emoji else "",
        coarse=sources()["photos"]["coarse"].get(folder) or coarse,
        hexcode=emoji.hexcode if emoji else None,
        skin=False,
        i18n=emoji.translations if emoji else {},
        kind=kind,
        source=source,
    )
