"""A served model for tests: ``engine serve`` in a process of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class EngineServer:
    """``engine serve`` with ``arguments``; ``url`` answers once :meth:`wait` returns."""

    def __init__(self, log: Path, arguments: tuple[str, ...]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        path = os.pathsep.join(filter(None, sys.path))
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "engine", "serve", *arguments, "--host", "127.0.0.1", "--port", str(port)],
                stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip

    def wait(self, seconds: float = 90.0) -> None:
        """Until ``/health`` answers 200; otherwise fails with the log's end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.status("/health") == 200:
                return
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"the server is not healthy:\n{self.log.read_text()[-4000:]}")

    def status(self, path: str) -> int:
        """The status of a GET; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer to a JSON request; an error status raises ``urllib.error.HTTPError``."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    def stop(self) -> None:
        """End the server; it has 20 seconds."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
