"""The page's browser and what stands around it: visits, a proxy with a prefix, requests beside it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import Request, urlopen

from tests.integration.serving import RunningServer

KEY = "correct horse"


class Visit:
    """An open page, and what it asked, logged and failed at."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.hosts: set[str] = set()
        self.problems: list[str] = []
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]) if "://" in request.url else None)
        page.on("console", lambda message: self.problems.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    def ask(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.keyboard.press("Enter")

    def answered(self, count: int = 1) -> str:
        """The last answer's text, when so many are complete."""
        until(
            self.page,
            f"document.querySelectorAll('.message.assistant').length === {count} && document.querySelector('#send').textContent === 'Send'"
        )
        return str(self.page.inner_text(".message.assistant:last-of-type .answer"))


def until(page: Any, expression: str, seconds: float = 20.0) -> None:
    """Wait for an expression to be true. Playwright's own waiting evaluates text in the page, which its policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.03)


@contextmanager
def visit(browser: Any, url: str, *, key: str | None = KEY, **options: Any) -> Iterator[Visit]:
    credentials = {"http_credentials": {"username": "me", "password": key}} if key else {}
    context = browser.new_context(**credentials, **options)
    context.set_default_timeout(20_000)
    visited = Visit(context.new_page())
    try:
        visited.page.goto(f"{url}/ui")
        visited.page.wait_for_selector("#plugins tr", state="attached")
        yield visited
    finally:
        context.close()


@contextmanager
def proxy(server: RunningServer, prefix: str) -> Iterator[str]:
    """What stands before a server that has only a part of the addresses: it strips the prefix."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(prefix + "/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("content-length") or 0)) or None
            kind = {"content-type": self.headers["content-type"]} if body else {}
            with urlopen(Request(server.url + self.path[len(prefix) :], body, kind), timeout=60) as answer:
                self.send_response(answer.status)
                for name in ("content-type", "content-security-policy"):
                    if answer.headers[name]:
                        self.send_header(name, answer.headers[name])
                self.end_headers()
                while piece := answer.read1(4096):
                    self.wfile.write(piece)
                    self.wfile.flush()

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    before = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=before.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{before.server_port}"
    finally:
        before.shutdown()
        before.server_close()


def get(server: RunningServer, path: str) -> str:
    with urlopen(Request(server.url + path, headers={"authorization": f"Bearer {KEY}"}), timeout=20) as answer:
        return str(answer.read().decode())


def metrics(server: RunningServer) -> str:
    return get(server, "/metrics")


def post(server: RunningServer, body: dict[str, Any]) -> None:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    with urlopen(Request(f"{server.url}/v1/completions", json.dumps(body).encode(), headers), timeout=60) as answer:
        answer.read()
