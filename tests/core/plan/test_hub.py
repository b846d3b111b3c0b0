"""Downloads from a hub stand-in: interrupted ones go on, damaged ones are refused, tokens and revisions reach the hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT, OTHER = "a" * 40, "b" * 40
WEIGHTS = bytes(range(256)) * 90_000  # more than the client's pieces of 10 MB
FILES = {"config.json": b'{"architectures": ["LlamaForCausalLM"]}', "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}


class Hub:
    """What the stand-in does wrong, and what it was asked."""

    def __init__(self) -> None:
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
            tree = [{"type": "file", "path": each, "size": len(text), "oid": "0" * 40} for each, text in FILES.items()]
            self.send(200, json.dumps(tree).encode(), {}, body=body)
        elif path.startswith("/api/models/owner/tiny"):
            siblings = [{"rfilename": each} for each in FILES]
            info = {"id": "owner/tiny", "sha": OTHER if name == "v2" else COMMIT, "siblings": siblings}
            self.send(200, json.dumps(info).encode(), {}, body=body)
        elif "/resolve/" in path and name in FILES:
            self.send_file(name, path.split("/")[4], body=body)
        else:
            self.send(404, b"{}", {}, body=body)

    def send_file(self, name: str, commit: str, *, body: bool) -> None:
        content = FILES[name]
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
def serving() -> Iterator[tuple[Hub, str]]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(hub, *args))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def start(home, endpoint: str, call: str, **environment: str) -> subprocess.Popen[str]:
    code = (
        "import hashlib, pathlib\nfrom engine.checkpoint import locate\nfrom engine.errors import ModelFileError\n"
        f"try:\n    found = {call}\n    data = (pathlib.Path(found.path) / 'model.safetensors').read_bytes()\n"
        "    print(pathlib.Path(found.path).name, hashlib.sha256(data).hexdigest(), pathlib.Path(found.tokenizer_path).name)\n"
        "except ModelFileError as error:\n    print('refused:', error.line())"
    )
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path), "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment,
    }  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def answer(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=60)
    assert out, err
    return out.split()


RIGHT = hashlib.sha256(WEIGHTS).hexdigest()


def test_an_interrupted_download_goes_on_where_it_ended(tmp_path):
    with serving() as (hub, url):
        hub.cut = 15_000_000
        assert answer(start(tmp_path, url, "locate('owner/tiny')")) == [COMMIT, RIGHT, COMMIT]
        ranges = [asked[1] for asked in hub.asked if asked[0].startswith("GET") and asked[0].endswith("model.safetensors")]
        assert any(value.startswith("bytes=") and not value.startswith("bytes=0-") for value in ranges), ranges


def test_a_damaged_download_is_refused_and_fetched_anew(tmp_path):
    with serving() as (hub, url):
        hub.damage = True
        found = " ".join(answer(start(tmp_path, url, "locate('owner/tiny')")))
        assert found.startswith("refused: model.safetensors came damaged") and RIGHT in found
        hub.damage = False
        assert answer(start(tmp_path, url, "locate('owner/tiny')"))[1] == RIGHT


def test_tokens_and_revisions(tmp_path):
    with serving() as (hub, url):
        call = "locate('owner/tiny', revision='v2', tokenizer_revision='main')"
        assert answer(start(tmp_path, url, call, HF_TOKEN="hf_secret")) == [OTHER, RIGHT, COMMIT]
        assert {asked[0] for asked in hub.asked if "owner/tiny" in asked[0] and asked[2] != "Bearer hf_secret"} == set()


def test_two_processes_at_once(tmp_path):
    with serving() as (hub, url):
        both = [start(tmp_path, url, "locate('owner/tiny')") for _ in range(2)]
        assert [answer(process) for process in both] == [[COMMIT, RIGHT, COMMIT]] * 2
        fetched = [asked for asked in hub.asked if asked[0].startswith("GET") and asked[0].endswith("model.safetensors")]
        assert len(fetched) == 1, "a lock makes the second one wait"
