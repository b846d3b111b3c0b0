"""``engine chat --url`` against a server of the tests' own."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from engine.cli import main


class Answers(BaseHTTPRequestHandler):
    """Streams two pieces and remembers what it was asked."""

    asked: list[dict] = []  # one list for all requests of a test

    def do_GET(self):
        self._send(200, b'{"data": [{"id": "tiny"}]}')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Answers.asked.append(body)
        if self.headers.get("Authorization") != "Bearer key":
            self._send(401, b'{"error": {"message": "Unauthorized"}}')
            return
        deltas = [{"role": "assistant"}, {"content": "Hel"}, {"content": "lo"}]
        events = [{"choices": [{"delta": delta}]} for delta in deltas]
        self._send(200, b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n")

    def _send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def url():
    Answers.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_turns_stay_in_the_context(url, capsys):
    argv = ["chat", "--url", url, "--api-key", "key", "--system", "Be brief.", "--message", "a", "--message", "b", "--temperature", "0"]
    assert main(argv) == 0
    assert capsys.readouterr().out == "Hello\nHello\n"
    roles = [message["role"] for message in Answers.asked[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert Answers.asked[1]["messages"][2]["content"] == "Hello"
    assert (Answers.asked[0]["model"], Answers.asked[0]["temperature"]) == ("tiny", 0.0)


def test_a_refusal_is_one_line(url, capsys):
    assert main(["chat", "--url", url, "--message", "a"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("/v1/chat/completions answered 401: Unauthorized. Try: --api-key KEY")


def test_nobody_there(capsys):
    assert main(["chat", "--url", "http://127.0.0.1:9", "--message", "a"]) == 1
    assert "does not answer" in capsys.readouterr().err.splitlines()[-1]
