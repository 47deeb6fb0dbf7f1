"""What every step of prepare.py shares: where files lie, the word lists, one picture's record."""

import json
import tomllib
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from headwise.errors import HeadwiseError

SIZE = 64  # pixels, both sides


@dataclass(frozen=True)
class Paths:
    """The data folder: downloads, intermediate files and results."""

    data: Path

    @property
    def npm(self) -> Path:
        return self.data / "npm/node_modules"

    @property
    def iconify(self) -> Path:
        return self.npm / "@iconify/json"

    @property
    def debian(self) -> Path:
        return self.data / "deb/x"

    @property
    def work(self) -> Path:
        return self.data / "work"

    @property
    def records(self) -> Path:
        return self.work / "records.jsonl"


@dataclass(frozen=True)
class Record:
    """One picture: where its drawing is, how it is labelled, who made it under which licence.

    source: ("iconify", set, icon), ("file", path below the Debian folder), or ("rcc", archive, path in it).
    captions: the name first, then aliases. i18n: language → label. hexcode: of the Unicode emoji it shows.
    """

    set: str
    name: str
    captions: list[str]
    keywords: list[str]
    i18n: dict[str, str]
    concept: str
    hexcode: str | None
    skin: bool
    licence: str
    author: str
    category: str
    subcategory: str
    coarse: str | None
    kind: str
    palette: bool
    source: tuple[str, ...] = field(default=())


@cache
def sources() -> dict:
    """sources.toml."""
    return tomllib.loads(Path(__file__).with_name("sources.toml").read_text(encoding="utf-8"))


@cache
def words(section: str, key: str) -> frozenset[str]:
    """A word list of sources.toml."""
    return frozenset(sources()[section][key].split())


def read_json(path: Path):
    """A JSON file that an earlier step made.

    Raises:
        HeadwiseError: it is missing.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HeadwiseError(f"{path} is missing; run `prepare.py fetch`, or `prepare.py all`") from None


def write_records(path: Path, records: list[Record]) -> None:
    """One JSON object a line; written beside and renamed, so that a stop leaves no half file."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")
    part.replace(path)


def read_records(path: Path) -> list[Record]:
    """What `write_records` wrote.

    Raises:
        HeadwiseError: it is missing.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
    except FileNotFoundError:
        raise HeadwiseError(f"{path} is missing; run `prepare.py records` first") from None
    return [Record(**row | {"source": tuple(row["source"])}) for row in rows]
