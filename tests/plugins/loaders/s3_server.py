"""A stand-in for an S3 store on the loopback: buckets are directories; listing, HEAD, ranged GET, PUT; no signature is checked."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


@contextmanager
def serving(root: Path) -> Iterator[tuple[str, list[str]]]:
    """The endpoint's URL, and the requests so far (``GET /bucket/key bytes=0-7``)."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Handler(root, asked, *args))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, asked: list[str], *args):
        self.root, self.asked = root, asked
        super().__init__(*args)

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def log_message(self, *_):
        pass

    def _answer(self, *, body: bool) -> None:
        parts = urlsplit(self.path)
        self.asked.append(f"{self.command} {unquote(parts.path)} {self.headers.get('Range', '')}".strip())
        query = parse_qs(parts.query)
        if "list-type" in query or "prefix" in query:
            return self._list(parts.path.strip("/"), query)
        file = self.root / unquote(parts.path).strip("/")
        if not file.is_file():
            return self._send(404, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>", {}, body)
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Last-Modified": "Sun, 01 Nov 2026 00:00:00 GMT"}
        headers["Accept-Ranges"] = "bytes"
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return self._send(200, content, headers, body)
        start, end = int(match[1]), min(int(match[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        return self._send(206, content[start : end + 1], headers, body)

    def _list(self, bucket: str, query: dict[str, list[str]]) -> None:
        prefix = query.get("prefix", [""])[0]
        items = ""
        for file in sorted(path for path in (self.root / bucket).rglob("*") if path.is_file()):
            key = str(file.relative_to(self.root / bucket))
            if key.startswith(prefix) and ("delimiter" not in query or "/" not in key[len(prefix) :]):
                tag = hashlib.md5(file.read_bytes()).hexdigest()
                items += (
                    f"<Contents><Key>{escape(key)}</Key><Size>{file.stat().st_size}</Size><ETag>&quot;{tag}&quot;</ETag>"
                    "<LastModified>2026-11-01T00:00:00.000Z</LastModified></Contents>"
                )
        text = f"<?xml version='1.0'?><ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
        self._send(200, text.encode(), {"Content-Type": "application/xml"}, True)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
