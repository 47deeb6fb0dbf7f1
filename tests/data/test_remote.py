"""Sources and images by URL, from servers on this machine: HTTP, S3 (moto), and Google's cloud without its library."""

import http.server
import importlib
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from headwise.data.files import local_copy
from headwise.data.read import read
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
    local_copy.cache_clear()


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
    local_copy.cache_clear()


def fails(source: str) -> str:
    with pytest.raises(HeadwiseError) as caught:
        read(source)
    return str(caught.value)


def test_http_sources_and_images(web: tuple[str, Path]) -> None:
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
    assert read(folder / "local.jsonl").images[0].read() == encoded(2)  # a local file that names images by URL


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
    local_copy.cache_clear()  # as in a new process
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
    assert read(images / "p.csv").images[0].read() == encoded(0)
    bucket("data/q.csv", b"image,caption\n0.png,a\n7.png,b\n")
    assert "the image s3://bucket/data/7.png does not exist" in fails("s3://bucket/data/q.csv")
    assert "cannot be read" in fails("s3://no-such-bucket/p.csv")


@pytest.mark.parametrize(("url", "library"), [("gs://bucket/p.csv", "gcsfs"), ("s3://bucket/p.csv", "s3fs")])
def test_what_is_missing_is_named(url: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.delitem(registry._registry, url[:2], raising=False)
    message = fails(url)
    assert library in message
    assert "pip install 'headwise[remote]'" in message
