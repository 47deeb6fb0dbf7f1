"""Sources and images by URL, from servers on this machine: HTTP, S3 (moto), and the part of Google's that is read."""

import base64
import hashlib
import http.server
import importlib
import io
import json
import sys
import tarfile
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest

from headwise.data.read import read
from headwise.data.remote import forget
from headwise.errors import HeadwiseError

from .conftest import encoded


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `broken` answers 500."""

    def do_GET(self) -> None:
        if "broken" in self.path:
            self.send_error(500)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(URL, folder) of a server on the loopback; http stands for https, whose code is the same."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", tmp_path
    server.shutdown()
    server.server_close()
    thread.join()
    forget()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Puts objects into s3://bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield lambda key, body: client.put_object(Bucket="bucket", Key=key, Body=body)
    client.close()
    server.stop()
    forget()


class Storage(http.server.BaseHTTPRequestHandler):
    """Google's JSON API as far as reading needs it: an object's metadata, its bytes or a range, an empty listing."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        place, _, key = url.path.partition("/o/")
        name, query = urllib.parse.unquote(key), urllib.parse.parse_qs(url.query)
        if place.endswith("/b/bucket/o"):
            self.answer(200, b'{"kind": "storage#objects"}')
        elif not place.endswith("/b/bucket") or name not in self.objects:
            self.answer(404, b'{"error": {"code": 404, "message": "No such object"}}')
        elif "media" in query.get("alt", []):
            self.answer_part(self.objects[name])
        else:
            body = self.objects[name]
            digest = base64.b64encode(hashlib.md5(body).digest()).decode()
            facts = {"name": name, "bucket": "bucket", "size": str(len(body)), "md5Hash": digest, "generation": "1"}
            dates = dict.fromkeys(("updated", "timeCreated"), "2026-01-01T00:00:00.000Z")
            self.answer(200, json.dumps({"kind": "storage#object", **facts, **dates}).encode())

    def answer_part(self, body: bytes) -> None:
        if not (span := self.headers.get("Range")):
            return self.answer(200, body)
        first, last = span.removeprefix("bytes=").split("-")
        part = body[int(first) : int(last or len(body)) + 1]
        return self.answer(206, part, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}"})

    def answer(self, code: int, body: bytes, headers: Mapping[str, str] = {}) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The objects of gs://bucket, which gcsfs reads from this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_address[1]}")
    Storage.objects.clear()
    yield Storage.objects
    server.shutdown()
    server.server_close()
    thread.join()
    forget()


def fails(source: str) -> str:
    with pytest.raises(HeadwiseError) as caught:
        read(source)
    return str(caught.value)


def test_http_sources_and_images(web: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, folder = web
    for i in range(3):
        (folder / f"{i}.png").write_bytes(encoded(i))
    (folder / "p.csv").write_text(f"image,caption\n0.png,a\n{url}/1.png,b\n")
    pairs = read(f"{url}/p.csv")
    assert pairs.texts == ("a", "b")
    assert pairs.images[1].read() == encoded(1)
    (folder / "local.jsonl").write_text(
        f'{{"image": "{url}/2.png", "caption": "c"}}\n{{"image": "0.png", "caption": "d"}}'
    )
    monkeypatch.setenv("HEADWISE_PRIVATE_HOSTS", url.removeprefix("http://"))
    # a local file that names images by URL
    assert read(folder / "local.jsonl", remote=True).images[0].read() == encoded(2)


def test_http_failures(web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "0.png").write_bytes(encoded(0))
    (folder / "p.csv").write_text("image,caption\n0.png,a\nnone.png,b\nbroken.png,c\n")
    message = fails(f"{url}/p.csv")
    assert "2 of 3 rows are bad" in message
    assert f"the image {url}/none.png does not exist" in message
    assert "line 4: the image cannot be read" in message
    assert "cannot be read" in fails(f"{url}/none.csv")
    assert "cannot be read" in fails("http://127.0.0.1:9/p.csv")  # nobody listens there


def test_a_remote_file_that_changed_is_fetched_again(web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "0.png").write_bytes(encoded(0))
    (folder / "1.png").write_bytes(encoded(1))
    (folder / "p.csv").write_text("image,caption\n0.png,a\n1.png,b\n")
    assert read(f"{url}/p.csv").texts == ("a", "b")
    (folder / "p.csv").write_text("image,caption\n0.png,a longer one\n1.png,b\n")
    forget()  # as in a new process
    assert read(f"{url}/p.csv").texts == ("a longer one", "b")


def test_http_webdataset(web: tuple[str, Path]) -> None:
    url, folder = web
    (folder / "test").mkdir()
    (folder / "test" / "nshards.txt").write_text("1")
    with tarfile.open(folder / "test" / "0.tar", "w") as archive:
        for i in range(2):
            for name, data in ((f"{i}.png", encoded(i)), (f"{i}.txt", b"first\nsecond")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    assert read(f"wds:{url}?split=test").captions == (("first", "second"),) * 2


def test_s3_sources_and_images(bucket, images: Path) -> None:
    for i in range(2):
        bucket(f"data/{i}.png", encoded(i))
    bucket("data/p.csv", b"image,caption\n0.png,a\ns3://bucket/data/1.png,b\n")
    pairs = read("s3://bucket/data/p.csv")
    assert pairs.texts == ("a", "b")
    assert pairs.images[1].read() == encoded(1)
    (images / "p.csv").write_text("image,caption\ns3://bucket/data/0.png,x\n1.png,y\n")
    assert read(images / "p.csv", remote=True).images[0].read() == encoded(0)
    bucket("data/q.csv", b"image,caption\n0.png,a\n7.png,b\n")
    assert "the image s3://bucket/data/7.png does not exist" in fails("s3://bucket/data/q.csv")
    assert "cannot be read" in fails("s3://no-such-bucket/p.csv")


def test_google_sources_and_images(google: dict[str, bytes], images: Path) -> None:
    google.update({f"data/{i}.png": encoded(i) for i in range(2)})
    google["data/p.csv"] = b"image,caption\n0.png,a\ngs://bucket/data/1.png,b\n"
    pairs = read("gs://bucket/data/p.csv")
    assert pairs.texts == ("a", "b")
    assert pairs.images[1].read() == encoded(1)
    (images / "p.csv").write_text("image,caption\ngs://bucket/data/0.png,x\n1.png,y\n")
    assert read(images / "p.csv", remote=True).images[0].read() == encoded(0)
    google["data/q.csv"] = b"image,caption\n0.png,a\n7.png,b\n"
    assert "the image gs://bucket/data/7.png does not exist" in fails("gs://bucket/data/q.csv")
    assert "cannot be read" in fails("gs://no-such-bucket/p.csv")


@pytest.mark.parametrize(("url", "library"), [("gs://bucket/p.csv", "gcsfs"), ("s3://bucket/p.csv", "s3fs")])
def test_what_is_missing_is_named(url: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(registry._registry, url[:2], raising=False)
    message = fails(url)
    assert library in message
    assert "pip install 'headwise[remote]'" in message
