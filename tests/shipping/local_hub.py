"""A hub on this machine: what huggingface_hub's client asks of one, over HTTP, with files in a folder."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def local_hub(folder: Path) -> Iterator[str]:
    """A hub whose repositories are folders below this one; its address. What it was asked is kept in `asked.jsonl` there; the
    token `hf_none` has no rights."""

    class Hub(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def answer(self, value: object, code: int = 200) -> None:
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if token == "hf_none":
                self.answer({"error": "You have no right to write here"}, 403)
                return
            with (folder / "asked.jsonl").open("a") as asked_file:
                lines = [json.loads(line) for line in body.splitlines()]
                about = [line for line in lines if line.get("key") != "file"]
                asked_file.write(json.dumps({"path": self.path, "token": token, "about": about}) + "\n")
            parts = self.path.partition("?")[0].strip("/").split("/")
            if parts[1:] == ["repos", "create"]:
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                (folder / name).mkdir(parents=True, exist_ok=True)
                self.answer({"url": f"http://{self.headers['Host']}/{name}", "name": name, "id": "1"})
            elif "branch" in parts:
                self.answer({"success": True})
            elif parts[1:] == ["validate-yaml"]:
                self.answer({"errors": [], "warnings": []})
            elif parts[4] == "preupload":
                files = json.loads(body)["files"]
                self.answer(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                )
            elif parts[4] == "commit":
                name = "/".join(parts[2:4])
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        path = folder / name / line["value"]["path"]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(base64.b64decode(line["value"]["content"]))
                url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
                self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "pullRequestUrl": None})
            else:
                self.answer({"error": f"unknown {self.path}"}, 404)

        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].strip("/").split("/")
            if "resolve" in parts:
                path = folder / "/".join(parts[:2]) / "/".join(parts[parts.index("resolve") + 2 :])
                if not path.is_file():
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.end_headers()
                    return
                content = path.read_bytes()
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)
            elif parts[:2] == ["api", "models"]:
                self.answer({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": []})
            else:
                self.answer({})

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
