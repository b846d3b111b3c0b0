"""A real ``engine serve`` process on a free port, for tests that need sockets, signals or the engine's own process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("core", "plugins", "plugins_quant", "plugins_devices", "plugins_parsers")


class RunningServer:
    """A server under test."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def engine_pid(self) -> int:
        """The engine process of this server."""
        (engine,) = (child for child in psutil.Process(self.process.pid).children(recursive=True) if _is_engine(child))
        return engine.pid

    def rss(self) -> int:
        """Resident bytes of the server and all its children."""
        parent = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in (parent, *parent.children(recursive=True)))

    def pages_used(self) -> float:
        """Share of KV pages in use, from the metrics."""
        for line in httpx.get(f"{self.url}/metrics").text.splitlines():
            if line.startswith("vllm:gpu_cache_usage_perc{"):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError("no metric vllm:gpu_cache_usage_perc")


def _is_engine(process: psutil.Process) -> bool:
    """Whether a process is an engine process that lives."""
    try:
        return "engine.process" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def start(log: Path, *arguments: str) -> RunningServer:
    """``engine serve`` with those arguments on a free port; it need not be ready, and the caller ends it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = os.pathsep.join([*(str(REPOSITORY / root) for root in ROOTS), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine", "serve", *arguments, "--port", str(port)],
            stdout=out, stderr=out, env=environment,
        )  # fmt: skip
    return RunningServer(process, port, log)


@contextlib.contextmanager
def serve(log: Path, *arguments: str, healthy_within: float = 90.0) -> Iterator[RunningServer]:
    """``engine serve`` with those arguments, healthy; stopped at the end."""
    server = start(log, *arguments)
    try:
        wait_until_healthy(server, healthy_within)
        yield server
    finally:
        server.process.terminate()
        try:
            server.process.wait(20)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()


def wait_until_healthy(server: RunningServer, seconds: float) -> None:
    """Until /health answers 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server is not healthy:\n{server.log.read_text()[-4000:]}")
