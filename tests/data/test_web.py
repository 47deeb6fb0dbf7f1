"""Files by http: from public addresses only unless others are allowed, within a size, whole, and streamed."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwise.data import web
from headwise.data.check import check
from headwise.data.read import read
from headwise.data.remote import digest, forget, local_copy, nothing_kept
from headwise.errors import HeadwiseError

from .conftest import encoded


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with what is laid down for a path: (status, headers, body)."""

    pages: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[str]
    held: threading.Event | None = None  # set: the connection stays open after the body

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status, headers, body = self.pages.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if self.held:
            self.wfile.flush()
            self.held.wait(60)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[Answers]]:
    handler = type("Here", (Answers,), {"pages": {}, "asked": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.url = f"http://127.0.0.1:{running.server_address[1]}"  # type: ignore
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield handler
    running.shutdown()
    running.server_close()
    thread.join()
    forget()


def fails(source: object, **options: object) -> str:
    with pytest.raises(HeadwiseError) as found:
        read(source, **options)  # type: ignore
    return str(found.value)


def source_of(folder: Path, *names: str) -> Path:
    lines = [f"{name},caption {i}" for i, name in enumerate(names)]
    (folder / "p.csv").write_text("image,caption\n" + "\n".join(lines) + "\n")
    return folder / "p.csv"


def test_private_addresses_are_not_asked(server, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.pages["/x.png"] = (200, {}, encoded(20))
    port = server.url.rpartition(":")[2]
    hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
    source = source_of(images, *(f"http://{host}:{port}/x.png" for host in hosts))
    message = fails(source, remote=True)
    assert f"{len(hosts)} of {len(hosts)} rows are bad" in message
    assert "is not a public address" in message
    assert "HEADWISE_PRIVATE_HOSTS=127.0.0.1" in message
    assert not server.asked
    monkeypatch.setenv("HEADWISE_PRIVATE_HOSTS", f"10.0.0.1, 127.0.0.1:{port}")
    allowed = source_of(images, f"{server.url}/x.png", "0.png")
    assert read(allowed, remote=True).images[0].read() == encoded(20)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True), ("2001:4860:4860::8888", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::1", False), ("::", False),
        ("fe80::1%eth0", False), ("fc00::1", False), ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False), ("64:ff9b::a9fe:a9fe", False), ("64:ff9b::808:808", True),
        ("fd00:ec2::254", False), ("ff02::1", False),
    ],
)  # fmt: skip
def test_what_is_public(address: str, expected: bool) -> None:
    assert web.public(address) is expected


def test_a_name_with_one_private_address_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name server may answer: a public address, and the machine's own."""

    def answer(host: str, port: int, **_: object) -> list:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("8.8.8.8", "127.0.0.1")]

    monkeypatch.setattr(web.socket, "getaddrinfo", answer)
    with pytest.raises(OSError, match=r"innocent.org is at 127.0.0.1"):
        local_copy("http://innocent.org/x.png", hosts=frozenset())


def test_redirects_are_looked_at_too(server, images: Path) -> None:
    """The typed host may be private; where it leads may not, also through a second redirect."""
    port = server.url.rpartition(":")[2]
    server.pages |= {
        "/good.png": (302, {"Location": "/x.png"}, b""),
        "/bad.png": (302, {"Location": f"http://localhost:{port}/x.png"}, b""),
        "/worse.png": (301, {"Location": "/bad.png"}, b""),
        "/file.png": (302, {"Location": "file:///etc/passwd"}, b""),
        "/round.png": (302, {"Location": "/round.png"}, b""),
        "/x.png": (200, {}, encoded(20)),
        "/p.csv": (200, {}, b"image,caption\ngood.png,a\nbad.png,b\nworse.png,c\nfile.png,d\nround.png,e\n"),
    }
    message = fails(f"{server.url}/p.csv")
    assert "4 of 5 rows are bad" in message
    assert message.count("localhost is at") == 2
    assert "file:///etc/passwd does not lead to a web server" in message
    assert "more than 5 redirects" in message
    assert server.asked.count("/x.png") == 1
    assert read(f"{server.url}/p.csv", skip_bad=True).images[0].read() == encoded(20)


def test_another_port_of_the_typed_host_is_not_asked(server, images: Path) -> None:
    other = socket.socket()
    other.bind(("127.0.0.1", 0))
    other.listen()
    other.settimeout(0.2)
    server.pages |= {
        "/p.csv": (200, {}, f"image,caption\n0.png,a\nhttp://127.0.0.1:{other.getsockname()[1]}/x,b\n".encode()),
        "/0.png": (200, {}, encoded(0)),
    }
    assert "1 of 2 rows is bad" in fails(f"{server.url}/p.csv")
    with pytest.raises(TimeoutError):
        other.accept()
    other.close()


def test_sizes(server, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Refused by the header without the body; while reading, where there is no header; and when it is cut off."""
    body = bytes(5 << 20)
    server.pages |= {
        "/said": (200, {"Content-Length": str(3 << 30)}, b""),
        "/unsaid": (200, {"Content-Length": "", "Connection": "close"}, body),
        "/cut": (200, {"Content-Length": str(len(body) + 1)}, body),
        "/good": (200, {}, body),
    }
    with pytest.raises(OSError, match="it has 3,221,225,472 bytes, an image may have 1,000,000"):
        local_copy(f"{server.url}/said", limit=1_000_000)
    with pytest.raises(OSError, match="more than 1,000,000 bytes"):
        local_copy(f"{server.url}/unsaid", limit=1_000_000)
    with pytest.raises(OSError, match="broke off after 5,242,880 of 5,242,881 bytes"):
        local_copy(f"{server.url}/cut")
    assert Path(local_copy(f"{server.url}/good")).read_bytes() == body
    assert Path(local_copy(f"{server.url}/unsaid")).read_bytes() == body
    assert len([path for path in cache.rglob("*") if path.is_file()]) == 2  # no halves are left


def test_what_has_not_changed_is_not_fetched_again(server) -> None:
    server.pages["/x"] = (200, {"ETag": '"1"'}, b"first")
    copy = local_copy(f"{server.url}/x")
    server.pages["/x"] = (200, {"ETag": '"1"'}, b"other")  # the server says that it is the same
    forget()
    assert Path(local_copy(f"{server.url}/x")).read_bytes() == b"first"
    server.pages["/x"] = (200, {"ETag": '"2"'}, b"third")
    forget()
    assert Path(local_copy(f"{server.url}/x")).read_bytes() == b"third"
    assert not Path(copy).exists()
    server.pages["/y"] = (200, {}, b"first")
    local_copy(f"{server.url}/y")
    server.pages["/y"] = (200, {}, b"other")  # of one length, and the server says nothing
    forget()
    assert Path(local_copy(f"{server.url}/y")).read_bytes() == b"other"


def test_names_with_marks_of_a_url(server, images: Path) -> None:
    names = ["a#1.png", "a b.png", "what?.png", "é.png", "50%25.png"]
    asked = ["/a%231.png", "/a%20b.png", "/what%3F.png", "/%C3%A9.png", "/50%25.png"]
    server.pages |= {path: (200, {}, encoded(i)) for i, path in enumerate(asked)}
    lines = "".join(f"{name},a {i}\n" for i, name in enumerate(names))
    server.pages["/p.csv"] = (200, {}, f"image,caption\n{lines}".encode())
    assert [image.read() for image in read(f"{server.url}/p.csv").images] == [encoded(i) for i in range(5)]


def test_odd_addresses(images: Path) -> None:
    odd = [
        "http://",
        "http:///x.png",
        "http://[::1",
        "http://h:99999999/x",
        "http://h:port/x",
        "http://ex ample/x",
        "http://" + "a" * 300 + "/x",
    ]
    message = fails(source_of(images, *odd), remote=True)
    assert f"{len(odd)} of {len(odd)} rows are bad" in message


def test_data_check_writes_nothing(server, images: Path, cache: Path, tmp_path_factory, monkeypatch) -> None:
    """Neither to the cache, nor beside the source, nor to the cache of `datasets`; nor is a temporary file left."""
    import datasets

    kept = tmp_path_factory.mktemp("kept")
    hub, temporary = kept / "hub", kept / "tmp"
    for folder in (hub, temporary):
        folder.mkdir()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", hub)
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    datasets.Dataset.from_list([{"image": f"{i}.png", "caption": f"{i}"} for i in range(3)]).to_parquet(
        images / "p.parquet"
    )
    for i in range(3):
        server.pages[f"/{i}.png"] = (200, {"ETag": "1"}, encoded(i))
    server.pages["/p.csv"] = (200, {"ETag": "1"}, b"image,caption\n0.png,a\n1.png,b\n2.png,c\n")
    server.pages["/p.parquet"] = (200, {"ETag": "1"}, (images / "p.parquet").read_bytes())
    before = sorted(images.rglob("*"))
    for source in (images / "p.parquet", f"{server.url}/p.csv", f"{server.url}/p.parquet"):
        assert check(source).images == 3
        left = [path for folder in (cache, hub, temporary) for path in folder.rglob("*") if path.is_file()]
        assert not left, source
    assert sorted(images.rglob("*")) == before


KILLED = """
import sys
from headwise.data.remote import local_copy, nothing_kept
if sys.argv[2] == "kept":
    local_copy(sys.argv[1])
else:
    with nothing_kept():
        local_copy(sys.argv[1])
"""


@pytest.mark.parametrize("how", ["kept", "nothing kept"])
def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_remove(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The server sends the first half and waits; the process that is reading is killed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    foreign = tmp_path / ("cache/remote" if how == "kept" else "tmp") / f".headwise-{'0' * 32}"
    foreign.mkdir(parents=True)  # looks like ours, and no run recorded it
    server.pages["/a.bin"] = (200, {"Content-Length": "2000"}, b"x" * 1000)
    server.held = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, f"{server.url}/a.bin", how],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
    )

    def left() -> list[Path]:
        return [path for path in tmp_path.rglob("*") if path.is_file()]

    while not any(path.name == digest(f"{server.url}/a.bin") for path in left()):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    server.held.set()
    server.held = None
    assert left()
    server.pages["/b.bin"] = (200, {"ETag": "1"}, b"other")
    if how == "kept":
        assert Path(local_copy(f"{server.url}/b.bin")).read_bytes() == b"other"
    else:
        with nothing_kept():
            assert Path(local_copy(f"{server.url}/b.bin")).read_bytes() == b"other"
    assert [path.name.partition("-")[0] for path in left()] == (
        [digest(f"{server.url}/b.bin")] if how == "kept" else []
    )
    assert foreign.is_dir()


def test_what_a_killed_run_left_anywhere_in_the_cache_is_removed_when_pairs_are_read(images: Path, cache: Path) -> None:
    """Also where the next run has nothing to write: its embeddings, looks and reads are there already."""
    code = "import os, sys; from pathlib import Path; from headwise.staging import scratch\nwith scratch(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    folders = [cache / name for name in ("texts", "checked", "remote", "pixels", "reads/abc")]
    for folder in folders:
        assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == -9
        assert len(list(folder.iterdir())) == 2, "a journal and a stage"
    source = source_of(images, "1.png", "2.png")
    read(source)
    assert not [path for folder in folders for path in folder.glob(".headwise*")]
