"""Readers against broken input: real files, randomly damaged. Each must give pairs or a HeadwiseError, nothing else.

    python benchmarks/fuzz_readers.py --inputs 100000 --seed 0

Prints how many inputs each format got and what came of them; the first failing input of a kind is kept and its
traceback printed. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from headwise.checked import dump_json
from headwise.data.assemble import assemble
from headwise.data.columns import Wanted
from headwise.data.decode import decode, decode_small, pillow_warnings
from headwise.data.read import read
from headwise.data.shards import open_shard
from headwise.data.sources import open_named
from headwise.errors import HeadwiseError

SIDE = 12


@dataclass(frozen=True)
class Target:
    """
    Arguments:
        sound: the undamaged file.
        file: where it goes in the working folder.
        source: what is read, `{}` for the working folder.
        weight: how often it is drawn.
    """

    sound: bytes
    file: str
    source: str
    weight: float = 1.0


def picture(seed: int, kind: str = "PNG", mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


def table(mark: str) -> bytes:
    rows = [("image", "caption", "split"), ("0.png", "a cat", "train"), ("1.png", '"a dog; ""quoted"""', "test")]
    return "\n".join(mark.join(row) for row in [*rows, ("2.png", "café 猫", "val")]).encode()


def archive(label: str) -> bytes:
    stream, texts = io.BytesIO(), {"cls": b"1", "json": b'{"caption": "a", "captions": ["b", "c"]}'}
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for i in range(3):
            for name, data in ((f"s{i}.png", picture(i)), (f"s{i}.{label}", texts.get(label, b"a\nb"))):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    images = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(3)]
    pq.write_table(pa.table({"image": images, "captions": [["a"], ["b", "c"], ["d"]]}), stream)
    return stream.getvalue()


def targets() -> dict[str, Target]:
    names = [f"{i}.png" for i in range(3)]
    sentences = [{"raw": "a cat"}, {"raw": "café"}]
    karpathy = {"images": [{"filename": n, "split": "restval", "sentences": sentences} for n in names]}
    coco = {
        "images": [{"id": i, "file_name": n} for i, n in enumerate(names)],
        "annotations": [{"image_id": i, "caption": "a cat"} for i in range(3)],
    }
    lines = "\n".join(json.dumps({"image": n, "captions": ["a", "b"], "split": "test"}) for n in names)
    records = lines.replace("\n", ", ")
    listed = 'image,captions\n0.png,"[\'a cat\', \'the cat\']"\n1.png,"[\'a dog\' ""it\'s""]"\n2.png,"array([\'b\'], dtype=object)"\n'
    by_image = {"0.png": ["a", "b"], "1.png": "c", "2.png": ["d"]}
    columns = {"image": names, "caption_1": ["a", "b", None], "caption_2": ["", "c", "d"]}
    tsv = "\n".join(f"{i}\t{base64.b64encode(picture(i)).decode()}" for i in range(3))
    texts = "\n".join(json.dumps({"text_id": i, "text": "猫", "image_ids": [i]}) for i in range(3))
    multi = [["0.png", "a", "1.png", "b"], ["2.png", "c", "0.png", "d"]]
    single = {"labels": ["red cup", "blue cup"], "data": [[n, {"cup": ["red"]}, [1, 0], [1, 1]] for n in names]}
    mix = {
        "parts": [{"source": "{here}/0.csv", "weight": 2}, {"source": "{here}/0.csv", "name": "b", "fitness": "auto"}]
    }
    return {
        "csv": Target(table(","), "p.csv", "{}/p.csv"),
        "labels": Target(b"image,label\n0.png,cat\n1.png,dog\n", "p.csv", "{}/p.csv"),
        "tsv": Target(table("\t"), "p.tsv", "{}/p.tsv"),
        "jsonl": Target(lines.encode(), "p.jsonl", "{}/p.jsonl"),
        "csv, tabs in UTF-16": Target(table("\t").decode().encode("utf-16"), "p.csv", "{}/p.csv"),
        "csv, semicolons": Target(table(";"), "p.csv", "{}/p.csv", 0.5),
        "csv, pipes": Target(b"image_name| comment_number| comment\n0.png| 0| a\n1.png| 0| b\n", "p.csv", "{}/p.csv", 0.5),
        "csv, lists": Target(listed.encode(), "p.csv", "{}/p.csv"),
        "json": Target(f"[{records}]".encode(), "p.json", "{}/p.json"),
        "json, by image": Target(json.dumps(by_image).encode(), "p.json", "{}/p.json"),
        "json, columns": Target(json.dumps(columns).encode(), "p.json", "{}/p.json", 0.5),
        "parquet": Target(parquet(), "p.parquet", "{}/p.parquet", 0.02),
        "folder": Target(b"file_name,text\n0.png,a\n1.png,b\n", "metadata.csv", "{}"),
        "karpathy": Target(json.dumps(karpathy).encode(), "k.json", "karpathy:{}/k.json"),
        "coco": Target(json.dumps(coco).encode(), "c.json", "coco:{}/c.json"),
        "flickr": Target(b"image,caption\n0.png,a cat, sitting\n1.png,\"b\"\n", "f.csv", "flickr:{}/f.csv"),
        "cna": Target("0.png#0\t猫\n1#1\t狗\n".encode(), "c.txt", "cna:{}/c.txt"),
        "chinese images": Target(tsv.encode(), "test_imgs.tsv", "chinese-clip:{}"),
        "chinese texts": Target(texts.encode(), "test_texts.jsonl", "chinese-clip:{}"),
        "wds retrieval": Target(archive("txt"), "0.tar", "wds:{}/*.tar"),
        "wds json": Target(archive("json"), "0.tar", "wds:{}/*.tar"),
        "wds classes": Target(archive("cls"), "test/0.tar", "wds:{}"),
        "cola pairs": Target(json.dumps(multi).encode(), "m.json", "cola:{}/m.json"),
        "cola queries": Target(json.dumps(single).encode(), "o.json", "cola:{}/o.json"),
        "mix": Target(json.dumps(mix).encode(), "x.json", "mix:{}/x.json", 0.5),
        "wds nshards": Target(b"1\n", "test/nshards.txt", "wds:{}", 0.2),
    }  # fmt: skip


@cache
def pictures() -> dict[str, bytes]:
    kinds = {kind: picture(0, kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")}
    return kinds | {"PNG palette": picture(1, "PNG", "P"), "JPEG CMYK": picture(2, "JPEG", "CMYK")}


def damage(data: bytes, draw: random.Random) -> bytes:
    """One to six random edits: flips, cuts, copies, insertions of awkward bytes, numbers blown up."""
    awkward = [
        b"\0",
        b'"',
        b",",
        b"\t",
        b"\n",
        b"\xff\xfe",
        b"[",
        b"{",
        b"../",
        b"/dev/zero",
        b"\xed\xa0\x80",
        b"NaN",
        b"'",
        b"|",
        b";",
        b"\xe2\x80\xa8",
    ]
    awkward += [
        b"9" * 30,
        b"9" * 5000,
        b"None",
        b"array(",
        b"null",
        b"\\u0000",
        b"\xef\xbb\xbf",
        b"-1",
        b"1e999",
        b"?split=",
        b"#",
        b"://",
        b"[" * 3000,
    ]
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 3, 6))):
        at, to = sorted((draw.randint(0, len(out)), draw.randint(0, len(out))))
        what = draw.randrange(7)
        if what == 0 and out:
            out[min(at, len(out) - 1)] = draw.randrange(256)
        elif what == 1 and out:
            out[min(at, len(out) - 1)] ^= 1 << draw.randrange(8)
        elif what == 2:
            del out[draw.randint(len(out) // 2, len(out)) :]
        elif what == 3:
            del out[at : min(to, at + draw.randint(1, 40))]
        elif what == 4:
            out[at:at] = draw.choice(awkward)
        elif what == 5:
            out[at:at] = out[at : min(to, at + 200)]
        else:
            out[at : at + 4] = draw.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01"])
    return bytes(out)


class Bench:
    """A working folder with sound files, one of which is replaced for each input."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.targets = targets()
        for i in range(3):
            (folder / f"{i}.png").write_bytes(picture(i))
        (folder / "key").mkdir()
        (folder / "key" / "pixels").write_bytes(bytes(48))

    def read(self, name: str, data: bytes) -> str:
        """What came of an input: `pairs` or `error`.

        Raises:
            Exception: whatever escapes the reader other than HeadwiseError: a bug.
        """
        target = self.targets[name]
        work = self.folder / name.replace(" ", "-")
        if not work.exists():
            self._sound(work, name)
        (work / target.file).write_bytes(data)
        try:
            source = target.source.format(work)
            if name == "mix":
                read(source, skip_bad=True, workers=1, cache_dir=self.folder / "cache")
            else:
                assemble(open_named(source, Wanted(), str(self.folder)), skip_bad=True, workers=1)
        except HeadwiseError as error:
            return _said(error)
        return "pairs"

    def _sound(self, work: Path, name: str) -> None:
        (work / "test").mkdir(parents=True)
        for i in range(3):
            (work / f"{i}.png").write_bytes(picture(i))
        (work / "0.csv").write_bytes(table(","))
        if name.startswith("chinese"):
            for other in ("chinese images", "chinese texts"):
                (work / self.targets[other].file).write_bytes(self.targets[other].sound)
        if name.startswith("wds"):
            (work / "classnames.txt").write_text("cat\ndog\n" if name != "wds retrieval" and name != "wds json" else "")
            (work / "test" / "nshards.txt").write_text("1")
            (work / "test" / "0.tar").write_bytes(archive("cls"))

    def image(self, data: bytes) -> str:
        with pillow_warnings():
            try:
                small, whole = decode_small(data, 64), decode(data)
            except HeadwiseError as error:
                return _said(error)
        if small.mode != "RGB" or whole.mode != "RGB":
            raise TypeError("not RGB")
        return "pairs"

    def shard(self, data: bytes) -> str:
        key = self.folder / "key"
        key.mkdir(exist_ok=True)
        (key / "pixels").write_bytes(bytes(48))
        (key / "shard.json").write_bytes(data)
        return "error" if open_shard(self.folder, "key", 1, lambda _: None) is None else "pairs"


def _said(error: HeadwiseError) -> str:
    if not str(error).strip():
        raise ValueError("an error without a message")
    return "error"


SHARD = dump_json({"shape": [1, 3, 4, 4], "dtype": "uint8", "table": [[0.0] * 256] * 3, "crc32": zlib.crc32(bytes(48))})


def draw_input(bench: Bench, seed: int) -> tuple[str, Callable[[bytes], str], bytes]:
    """(format, reader, damaged input) of one seed."""
    draw = random.Random(seed)
    kinds = {name: target.weight for name, target in bench.targets.items()} | {"image": 4.0, "shard index": 0.5}
    name = draw.choices(list(kinds), list(kinds.values()))[0]
    if name == "image":
        kind, sound = draw.choice(list(pictures().items()))
        return f"image {kind}", bench.image, damage(sound, draw)
    if name == "shard index":
        return name, bench.shard, damage(SHARD, draw)
    return name, lambda data: bench.read(name, data), damage(bench.targets[name].sound, draw)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[tuple[str, str]] = Counter()
    failures: dict[str, str] = {}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/hf"
        bench = Bench(Path(folder))
        for seed in range(options.seed, options.seed + options.inputs):
            if time.monotonic() - started > 60 * options.minutes:
                break
            name, run, data = draw_input(bench, seed)
            try:
                outcome = run(data)
            except Exception as error:
                outcome = "CRASH"
                failures.setdefault(
                    f"{name}: {type(error).__name__}: {error}"[:150], f"seed {seed}\n{traceback.format_exc()}"
                )
            counts[name, outcome] += 1
    for name in sorted({name for name, _ in counts}):
        found = {outcome: counts[name, outcome] for outcome in ("pairs", "error", "CRASH")}
        print(f"{name:16} {sum(found.values()):>7,}  " + "  ".join(f"{k} {v:,}" for k, v in found.items()))
    print(f"{counts.total():,} inputs in {time.monotonic() - started:.0f} s, {len(failures)} kinds of crash")
    for text in list(failures.values())[:10]:
        print(text)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
