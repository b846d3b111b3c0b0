"""A stand-in for the hub, on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT, OTHER = "a" * 40, "b" * 40


class Hub:
    """What the stand-in has, what it does wrong, and what it was asked."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.cut = 0  # bytes after which the connection of the next download ends
        self.damage = False
        self.asked: list[tuple[str, str, str]] = []


class Handler(BaseHTTPRequestHandler):
    """One public repository ``owner/tiny`` with two commits."""

    def __init__(self, hub: Hub, *args) -> None:
        self.hub = hub
        super().__init__(*args)

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def log_message(self, *_):
        pass

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append((f"{self.command} {path}", self.headers.get("Range", ""), self.headers.get("Authorization", "")))
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/owner/tiny/tree/"):
            tree = [{"type": "file", "path": each, "size": len(text), "oid": "0" * 40} for each, text in self.hub.files.items()]
            self.send(200, json.dumps(tree).encode(), {}, body=body)
        elif path.startswith("/api/models/owner/tiny"):
            siblings = [{"rfilename": each} for each in self.hub.files]
            info = {"id": "owner/tiny", "sha": OTHER if name == "v2" else COMMIT, "siblings": siblings}
            self.send(200, json.dumps(info).encode(), {}, body=body)
        elif "/resolve/" in path and name in self.hub.files:
            self.send_file(name, path.split("/")[4], body=body)
        else:
            self.send(404, b"{}", {}, body=body)

    def send_file(self, name: str, commit: str, *, body: bool) -> None:
        content = self.hub.files[name]
        large = name == "model.safetensors"
        tag = hashlib.sha256(content).hexdigest() if large else hashlib.sha1(content).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit}
        if self.hub.damage and large:
            content = content[:-1] + b"?"
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if start else 200, content[start:], headers, body=body)

    def send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        cut = self.hub.cut if body and len(content) > self.hub.cut > 0 else 0
        if body:
            self.wfile.write(content[:cut] if cut else content)
        if cut:
            self.hub.cut = 0
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(2)


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[tuple[Hub, str]]:
    """The stand-in at work, and its address."""
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(hub, *args))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def environment(home: Path, endpoint: str) -> dict[str, str]:
    """Of a process that asks the stand-in and keeps what it fetches below ``home``."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
