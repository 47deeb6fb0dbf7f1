"""Index a folder of images and answer text queries, by the original and the refined model side by side.

    python search.py index PICTURES --original MODEL --refined MODEL --out INDEX
    python search.py ask INDEX "a red car"
    python search.py serve INDEX --port 8000

In: pictures, two models. Out: a folder with `pictures.json` and an index of usearch for each model; lists of pictures, or a page.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

import headwise

SIDES = ("original", "refined")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
BATCH, FOUND = 32, 12
PAGE = """<!doctype html><meta charset="utf-8"><title>Search</title>
<style>body{{font:16px system-ui;margin:2rem}}section{{display:grid;grid-template-columns:1fr 1fr;gap:2rem}}
ol{{display:flex;flex-wrap:wrap;gap:.5rem;padding:0;list-style:none}}img{{height:7rem;border-radius:.3rem}}</style>
<form><label>Pictures of <input name="q" value="{query}" autofocus size="40"></label> <button>Search</button></form>
<section>{columns}</section>"""


@dataclass(frozen=True)
class Searcher:
    """An opened index folder: text → pictures, by each model."""

    pictures: list[Path]
    models: dict[str, Any]
    indices: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Searcher:
        from usearch.index import Index

        content = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
        indices = {side: Index.restore(str(folder / f"{side}.usearch")) for side in SIDES}
        models = {side: headwise.load(content["models"][side]) for side in SIDES}
        return cls([Path(path) for path in content["pictures"]], models, indices)

    def ask(self, text: str, count: int = FOUND) -> dict[str, list[tuple[int, float]]]:
        """For each model: (number of the picture, cosine), the best first."""
        found = {}
        for side in SIDES:
            vector = unit(self.models[side].encode_texts([text]))[0]  # (E)
            matches = self.indices[side].search(vector, count)
            found[side] = [(int(match.key), 1 - float(match.distance)) for match in matches]
        return found


def unit(embeddings: torch.Tensor) -> np.ndarray:
    """Embeddings of length 1, (N, E) float32."""
    return torch.nn.functional.normalize(embeddings.float(), dim=-1).cpu().numpy()


def index(pictures: Path, models: dict[str, str], out: Path) -> int:
    """Embed every picture below a folder by each model and write the indices; how many there are."""
    from usearch.index import Index

    paths = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in ENDINGS)
    readable = [path for path in paths if is_picture(path)]
    if not readable:
        raise SystemExit(f"{pictures} holds no pictures ({', '.join(ENDINGS)}).")
    out.mkdir(parents=True, exist_ok=True)
    for side, name in models.items():
        model = headwise.load(name)
        made: Any = None
        for start in range(0, len(readable), BATCH):
            images = [Image.open(path).convert("RGB") for path in readable[start : start + BATCH]]
            with torch.inference_mode():
                batch = torch.stack([model.preprocess(image) for image in images])  # (B, 3, R, R)
                vectors = unit(model.tower.encode(batch))  # (B, E)
            made = made if made is not None else Index(ndim=vectors.shape[1], metric="cos", dtype="f32")
            made.add(np.arange(start, start + len(vectors)), vectors)
        made.save(str(out / f"{side}.usearch"))
    content = {"models": models, "pictures": [str(path.resolve()) for path in readable]}
    (out / "pictures.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return len(readable)


def is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        print(f"left out, not a picture: {path}", file=sys.stderr)
        return False
    return True


def serve(searcher: Searcher, port: int) -> ThreadingHTTPServer:
    """A page on this machine alone; a picture is asked for by its number, never by a path."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            number = asked.path.removeprefix("/picture/")
            if asked.path == "/":
                query = parse_qs(asked.query).get("q", [""])[0]
                self.answer(page(searcher, query).encode(), "text/html; charset=utf-8")
            elif number.isascii() and number.isdigit() and int(number) < len(searcher.pictures):
                path = searcher.pictures[int(number)]
                self.answer(path.read_bytes(), mimetypes.guess_type(path)[0] or "application/octet-stream")
            else:
                self.send_error(404)

        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("X-Content-Type-Options", "nosniff"),
                (
                    "Content-Security-Policy",
                    "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; form-action 'self'",
                ),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Page)


def page(searcher: Searcher, query: str) -> str:
    columns = ""
    for side, found in (searcher.ask(query) if query.strip() else {}).items():
        pictures = "".join(
            f'<li><img src="/picture/{number}" title="{cosine:.3f} {escape(searcher.pictures[number].name)}"></li>'
            for number, cosine in found
        )
        columns += f"<div><h2>{side}</h2><ol>{pictures}</ol></div>"
    return PAGE.format(query=escape(query, quote=True), columns=columns)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("index")
    one.add_argument("pictures", type=Path)
    one.add_argument("--original", required=True)
    one.add_argument("--refined", required=True)
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("ask")
    two.add_argument("index", type=Path)
    two.add_argument("text")
    two.add_argument("--count", type=int, default=5)
    three = commands.add_parser("serve")
    three.add_argument("index", type=Path)
    three.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    try:
        if options.command == "index":
            models = {side: getattr(options, side) for side in SIDES}
            print(f"{index(options.pictures, models, options.out):,} pictures in {options.out}")
        elif options.command == "ask":
            searcher = Searcher.open(options.index)
            for side, found in searcher.ask(options.text, options.count).items():
                print(side)
                for number, cosine in found:
                    print(f"  {cosine:.3f}  {searcher.pictures[number]}")
        else:
            server = serve(Searcher.open(options.index), options.port)
            print(f"http://127.0.0.1:{server.server_address[1]}")
            server.serve_forever()
    except headwise.HeadwiseError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
