"""The explorer as a server: its page alone is answered, a port in use, Ctrl-C."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from finished_run import finished_run

from .common import refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("explore"), 30)


@pytest.fixture(scope="module")
def server(folder):
    """(port, token, process) of a running one; at the end it is interrupted as by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headwise", "explore", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    address = urlsplit(line.split()[1])
    yield address.port, address.path.strip("/"), process
    if process.poll() is None:
        process.kill()
        process.communicate()


def ask(port, path, body=None, method=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    own = {"Host": f"127.0.0.1:{port}"}
    if body is not None:
        own |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(
        method or ("GET" if body is None else "POST"), path, body, {k: v for k, v in own.items() if v is not None}
    )
    try:
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


CLICK = json.dumps({"edits": {"L4.H0": "zero"}})


def test_its_own_page_is_answered(server):
    port, token, _ = server
    status, page, headers = ask(port, f"/{token}/")
    assert status == 200
    assert b"live" in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers
    status, answer, _ = ask(port, f"/{token}/look", CLICK)
    assert status == 200
    found = json.loads(answer.decode().splitlines()[-1])
    assert found["done"] == found["total"] == 20
    status, picture, headers = ask(port, f"/{token}/picture/0")
    assert (status, headers["content-type"], picture[8:12]) == (200, "image/webp", b"WEBP")


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({}, "/"),
        ({}, "/guess/"),
        ({}, "/{token}x/"),
        ({"Host": "evil.example"}, "/{token}/"),
        ({"Host": "evil.example:{port}"}, "/{token}/"),
        ({"Host": "127.0.0.1:1"}, "/{token}/"),
        ({"Origin": "http://evil.example"}, "/{token}/"),
        ({"Sec_Fetch_Site": "cross-site"}, "/{token}/"),
    ],
)
def test_other_pages_and_guesses_are_refused(server, change, path):
    port, token, _ = server
    headers = {name: value.format(port=port) for name, value in change.items()}
    status, body, _ = ask(port, path.format(token=token), **headers)
    assert status == 403
    assert token.encode() not in body


@pytest.mark.parametrize(
    "change", [{"Origin": None}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Content_Type": "text/plain"}]
)
def test_work_is_done_for_its_own_page_alone(server, folder, change):
    port, token, _ = server
    for path in ("look", "save"):
        assert ask(port, f"/{token}/{path}", CLICK, **change)[0] == 403
    assert not list(folder.glob("explored-*"))


def test_no_path_is_taken_from_a_request(server, folder):
    port, token, _ = server
    for path in ("picture/../../../etc/passwd", "picture/%2e%2e%2fx", "picture/-1", "picture/20", "picture/x", "x"):
        assert ask(port, f"/{token}/{path}")[0] in (403, 404), path
    body = json.dumps({**json.loads(CLICK), "folder": "/tmp/elsewhere", "out": "../../x"})
    status, answer, _ = ask(port, f"/{token}/save", body)
    assert status == 200
    assert json.loads(answer)["folder"] == str(folder / "explored-1")
    assert (folder / "explored-1" / "head_mask.json").is_file()


BROKEN = ["", "[]", "{", '{"gates": {}}', "[" * 50_000, '{"x": "' + "x" * 200_000 + '"}']
BROKEN += [r'{"edits": {}, "query": {"text": "\ud800"}}', r'{"edits": {"\udc00": "zero"}}']
BROKEN += ['{"edits": {"L0.H0": "scale(1e39)"}}', '{"edits": {"L0.H0": "spectral"}}', '{"edits": {"L0.H0": 5}}']


@pytest.mark.parametrize("body", BROKEN)
def test_broken_requests_get_a_sentence(server, body):
    port, token, _ = server
    status, answer, _ = ask(port, f"/{token}/look", body)
    assert status == 400
    assert json.loads(answer)["error"]


def test_a_client_who_goes_away_is_no_error(server):
    port, token, _ = server
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as other:
            heads = f"Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nContent-Type: application/json"
            other.sendall(f"POST /{token}/look HTTP/1.1\r\n{heads}\r\nContent-Length: 100\r\n\r\n{{}}".encode())
    assert ask(port, f"/{token}/look", CLICK)[0] == 200  # that nothing is printed is seen at the end


def test_a_port_in_use_is_said(folder, run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused(run("explore", folder, "--port", port), f"Port {port} cannot be used", "--port")
    assert "in use" in said


def test_without_a_finished_run_or_the_extra_it_says_what_to_do(run, folder, tmp_path, monkeypatch):
    refused(run("explore", tmp_path), "results.json")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused(run("explore", folder), "headwise[explore]")


def test_ctrl_c_ends_it_cleanly_and_frees_the_port(server):
    port, _, process = server
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "Stopped." in out
    assert "Traceback" not in err
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.1", port))
