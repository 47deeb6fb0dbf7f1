"""Draw every record at 64 × 64 pixels on white. A run that was stopped goes on where it was."""

import hashlib
import io
import json
import multiprocessing
import time
from collections import Counter
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from common import SIZE, Paths, Record, read_json, read_records
from photo_records import read_rcc
from PIL import Image

from headwise.errors import HeadwiseError

TODO, DONE, FAILED = 0, 1, 2  # states of a record in render_state.npy
MARGIN = 2  # white pixels around clip art and photographs, which have no grid of their own
TIME_LIMIT = 60.0  # seconds for one clip-art SVG; none of them takes long, but the machine may be busy
REPORT_EVERY = 20_000


def fit(image: Image.Image) -> np.ndarray:
    """A picture of any shape on a white square, its empty margins cropped.

    Returns:
        (64, 64, 3) uint8.
    """
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    image = white.convert("RGB")
    ink = (np.asarray(image) < 250).any(2)  # (height, width)
    if ink.any():
        rows, columns = np.flatnonzero(np.any(ink, axis=1)), np.flatnonzero(np.any(ink, axis=0))
        image = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    scale = (SIZE - 2 * MARGIN) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGB", (SIZE, SIZE), (255, 255, 255))
    resized = image.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(resized, ((SIZE - width) // 2, (SIZE - height) // 2))
    return np.asarray(square)


def icon_svg(icon_set: dict, name: str) -> str:
    """One Iconify icon as a whole SVG, black where it takes the text's colour."""
    icon = icon_set["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icon_set.get("width", 16))
    height = icon.get("height", icon_set.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIZE}" height="{SIZE}" viewBox="{left} {top} {width} {height}" color="#000000">{icon["body"]}</svg>'
    )


def _draw_svgs(connection: Connection) -> None:
    """In a child process: draw the SVGs that come in, send pixels or an error message back."""
    import resvg_py  # pyright: ignore[reportMissingImports] -- prepare.py fetch installs it

    while True:
        source = connection.recv()
        try:
            png = resvg_py.svg_to_bytes(**source, width=256, dpi=90.0, skip_system_fonts=True)
            connection.send(fit(Image.open(io.BytesIO(bytes(png)))))
        except BaseException as error:  # resvg panics with a BaseException
            connection.send(str(error)[:200])


class ClipArtRenderer:
    """Draws in a child process, because some clip-art SVGs hang or crash the renderer."""

    def __init__(self) -> None:
        self._child: multiprocessing.Process | None = None
        self._connection: Connection | None = None

    def __call__(self, **source: str) -> np.ndarray | str:
        """Pixels (64, 64, 3), or what went wrong. `source`: svg_path or svg_string."""
        if self._child is None or self._connection is None or not self._child.is_alive():
            self._connection, other_end = multiprocessing.Pipe()
            self._child = multiprocessing.Process(target=_draw_svgs, args=(other_end,), daemon=True)
            self._child.start()
            other_end.close()  # so that the child's death ends the pipe
        self._connection.send(source)
        try:
            if self._connection.poll(TIME_LIMIT):
                return self._connection.recv()
        except EOFError:
            self.close()
            return "crash"
        self.close()
        return "timeout"

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.kill()
            self._child.join()
        self._child = None


@lru_cache(maxsize=1)
def _icon_set(path: Path) -> dict:
    return read_json(path)


@lru_cache(maxsize=1)
def _archive(path: Path) -> dict[str, bytes]:
    return read_rcc(path)


def draw(record: Record, paths: Paths, clip_art: ClipArtRenderer) -> np.ndarray | str:
    """Pixels (64, 64, 3) uint8 of a record's source, or what went wrong."""
    import resvg_py  # pyright: ignore[reportMissingImports] -- prepare.py fetch installs it

    kind, container, *inner = record.source
    if kind == "iconify":
        svg = icon_svg(_icon_set(paths.iconify / f"json/{container}.json"), inner[0])
        png = resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", skip_system_fonts=True)
        pixels = np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))
        return pixels if pixels.shape == (SIZE, SIZE, 3) else f"drawn with shape {pixels.shape}"
    if kind == "file":
        return clip_art(svg_path=str(paths.debian / container))
    content = _archive(paths.debian / container)[inner[0]]
    if inner[0].endswith(".svg"):
        return clip_art(svg_string=content.decode("utf-8", "replace"))
    return fit(Image.open(io.BytesIO(content)))


def open_render(paths: Paths, records: list[Record], *, writable: bool) -> tuple[np.ndarray, np.ndarray]:
    """The pictures (N, 64, 64, 3) and their states (N,), mapped from disk.

    The files are begun anew if the records' sources are others than they were drawn from.

    Raises:
        HeadwiseError: to be read only, but not drawn yet, or from other records.
    """
    digest = hashlib.md5(json.dumps([record.source for record in records]).encode()).hexdigest()
    pictures, states, key = (paths.work / f"render{name}" for name in (".npy", "_state.npy", "_key.txt"))
    is_current = key.exists() and key.read_text() == digest
    if writable and not is_current:
        key.unlink(missing_ok=True)
        np.lib.format.open_memmap(pictures, "w+", np.uint8, (len(records), SIZE, SIZE, 3)).flush()
        np.lib.format.open_memmap(states, "w+", np.uint8, (len(records),)).flush()
        key.write_text(digest)
    elif not is_current:
        raise HeadwiseError(f"{pictures} is missing or older than the records; run `prepare.py render` first")
    mode = "r+" if writable else "r"
    drawn, state = np.load(pictures, mmap_mode=mode), np.load(states, mmap_mode=mode)
    if not writable and (left := int((state == TODO).sum())):
        raise HeadwiseError(f"{left:,} of {len(records):,} pictures are not drawn yet; run `prepare.py render` again")
    return drawn, state


def render(paths: Paths) -> None:
    """Draw the records that are not drawn yet, failed ones again, and print what failed."""
    records = read_records(paths.records)
    pictures, states = open_render(paths, records, writable=True)
    todo = np.flatnonzero(states != DONE)
    print(f"render: {len(records):,} records, {len(todo):,} to draw", flush=True)
    errors: Counter[str] = Counter()
    clip_art = ClipArtRenderer()
    start = time.time()
    for count, row in enumerate(todo, 1):
        record = records[row]
        try:
            result = draw(record, paths, clip_art)
        except (KeyboardInterrupt, HeadwiseError):
            raise
        except BaseException as error:  # one bad drawing; resvg panics with a BaseException
            result = str(error) or type(error).__name__
        if isinstance(result, str):
            errors[f"{record.set}: {result[:60]}"] += 1
            states[row] = FAILED
        else:
            pictures[row] = result  # before its state: a stop between the two draws it again
            states[row] = DONE
        if count % REPORT_EVERY == 0:
            print(f"  {count:,} of {len(todo):,}, {time.time() - start:.0f} s, {record.set}", flush=True)
    clip_art.close()
    print(f"render: {int((states == DONE).sum()):,} of {len(records):,} drawn")
    for error, count in errors.most_common(20):
        print(f"  failed {count}: {error}")
