"""How the server's processes end: on signals, on each other's death, while loading and while serving; never with orphans."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.serving import RunningServer, serve, start

LONG = {"prompt": "On and on", "max_tokens": 1900, "temperature": 0, "ignore_eos": True, "stream": True}
FLAGS = ("demo", "--disable-uvicorn-access-log", "--max-num-seqs", "16")
SIGNALS = [(signal.SIGTERM, 0), (signal.SIGINT, 130)]


class Stream(threading.Thread):
    """A client in the middle of a long answer: its texts, its error, and whether it came to an end."""

    def __init__(self, url: str, **fields: object) -> None:
        super().__init__(daemon=True)
        self.url, self.body = url, {**LONG, **fields}
        self.texts: list[str] = []
        self.error: dict[str, object] | None = None
        self.failure: str | None = None
        self.done = False
        self.begun = threading.Event()
        self.start()
        assert self.begun.wait(60)

    def run(self) -> None:
        try:
            with httpx.stream("POST", f"{self.url}/v1/completions", json=self.body, timeout=60) as answer:
                for line in answer.iter_lines():
                    self._take(line)
        except httpx.HTTPError as error:
            self.failure = repr(error)
        self.begun.set()

    def _take(self, line: str) -> None:
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            if "error" in event:
                self.error = event["error"]
            else:
                self.texts.append(event["choices"][0]["text"])
                self.begun.set()


def assert_gone(pids: list[int], within: float = 20.0) -> None:
    """None of the processes is left (a zombie, which only waits for its parent, is gone)."""
    deadline = time.monotonic() + within
    left = pids
    while left and time.monotonic() < deadline:
        left = [pid for pid in left if _alive(pid)]
        time.sleep(0.02)
    assert not left


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(process: subprocess.Popen[bytes]) -> list[int]:
    """The server and everything that it started."""
    try:
        parent = psutil.Process(process.pid)
        return [parent.pid, *(child.pid for child in parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def assert_clean(server: RunningServer) -> None:
    text = server.log.read_text()
    assert "Traceback" not in text, text[-4000:]
    assert "fault in the engine" not in text


def test_a_killed_server_leaves_no_engine(tmp_path: Path) -> None:
    with serve(tmp_path / "log", *FLAGS) as server:
        stream = Stream(server.url)
        pids = family(server.process)
        assert server.engine_pid() in pids
        server.process.kill()
        assert_gone(pids)
        stream.join(20)
        assert not stream.is_alive()


def test_a_killed_engine_is_told_to_everybody(tmp_path: Path) -> None:
    with serve(tmp_path / "log", *FLAGS, "--disable-engine-restart") as server:
        streams = [Stream(server.url), Stream(server.url, n=2, temperature=1)]
        os.kill(server.engine_pid(), signal.SIGKILL)
        for stream in streams:
            stream.join(20)
            assert not stream.is_alive()
            assert stream.error is not None and stream.error["type"] == "server_error"
            assert stream.done and stream.failure is None
        health = httpx.get(f"{server.url}/health")
        assert health.status_code == 503 and "engine process ended" in health.json()["error"]["message"]
        later = httpx.post(f"{server.url}/v1/completions", json={"prompt": "Hi", "max_tokens": 1})
        assert later.status_code == 503 and later.headers["retry-after"]
        pids = family(server.process)
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert_gone(pids)
        assert_clean(server)


@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=["SIGTERM", "SIGINT"])
def test_a_signal_while_serving_lets_requests_finish(tmp_path: Path, number: int, status: int) -> None:
    with serve(tmp_path / "log", *FLAGS) as server:
        stream = Stream(server.url, max_tokens=300)
        pids = family(server.process)
        server.process.send_signal(number)
        assert server.process.wait(60) == status
        stream.join(20)
        assert stream.done and stream.error is None
        assert_gone(pids)
        assert_clean(server)


@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_to_all_processes_lets_requests_finish(tmp_path: Path, number: int, status: int, ranks: int) -> None:
    """What a service's stop and Ctrl-C send: the engine and its workers work on until the server has answered everybody."""
    with serve(tmp_path / "log", *FLAGS, "--tensor-parallel-size", str(ranks)) as server:
        # The compile process runs from the first constraint on.
        constrained = {"prompt": "Say", "max_tokens": 4, "guided_regex": "[a-z]+"}
        assert httpx.post(f"{server.url}/v1/completions", json=constrained, timeout=60).status_code == 200
        stream = Stream(server.url, max_tokens=600)
        pids = family(server.process)
        assert len(pids) >= 1 + ranks and not stream.done
        for pid in pids:
            os.kill(pid, number)
        assert server.process.wait(60) == status
        stream.join(20)
        assert stream.done and stream.error is None
        assert_gone(pids)
        assert_clean(server)
        log = server.log.read_text()
        assert "ERROR" not in log and "Starting the engine again" not in log


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with serve(tmp_path / "log", *FLAGS) as server:
        streams = [Stream(server.url) for _ in range(8)]
        pids = family(server.process)
        server.process.terminate()
        time.sleep(0.2)
        server.process.terminate()
        assert server.process.wait(20) == 0
        for stream in streams:
            stream.join(20)
            assert not stream.is_alive()
        assert_gone(pids)
        assert_clean(server)


@pytest.mark.parametrize("delay", [0.15, 0.4, 0.8, 1.2])
@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=["SIGTERM", "SIGINT"])
def test_a_signal_while_loading_ends_the_start(tmp_path: Path, number: int, status: int, delay: float) -> None:
    """Before the server has taken signals over, Python's and the system's own endings are due, without a traceback."""
    server = start(tmp_path / "log", *FLAGS)
    time.sleep(delay)
    pids = family(server.process)
    server.process.send_signal(number)
    found = server.process.wait(30)
    # Python answers SIGINT with 130; the system, where Python has not begun yet, with the signal itself.
    assert found in (status, -number) or (number == signal.SIGINT and found == 130)
    assert_gone(pids)
    assert_clean(server)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.03, 0.06, 0.1])
@pytest.mark.parametrize(("number", "status"), SIGNALS, ids=["SIGTERM", "SIGINT"])
def test_a_signal_to_all_processes_while_the_engine_begins(tmp_path: Path, number: int, status: int, delay: float) -> None:
    """In no moment of its start the engine process answers for itself, and nobody complains of an engine that was not wanted."""
    server = start(tmp_path / "log", *FLAGS)
    deadline = time.monotonic() + 30
    while len(pids := family(server.process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay)
    for pid in pids:
        os.kill(pid, number)
    assert server.process.wait(30) == status
    assert_gone(pids)
    assert_clean(server)
    assert "rror" not in server.log.read_text()


def test_a_request_while_loading_is_told_to_come_back(tmp_path: Path) -> None:
    server = start(tmp_path / "log", *FLAGS)
    statuses = set()
    try:
        deadline = time.monotonic() + 60
        while 200 not in statuses and time.monotonic() < deadline:
            try:
                answer = httpx.get(f"{server.url}/health")
            except httpx.HTTPError:
                continue
            statuses.add(answer.status_code)
            assert answer.status_code == 200 or answer.headers["retry-after"]
    finally:
        server.process.terminate()
        server.process.wait(20)
    assert statuses == {200, 503}


@pytest.mark.parametrize("victims", ["SEW", "EWS", "WS", "WES", "ES", "stopped W, S", "stopped E, S"])
def test_no_orphan_in_any_order_of_kills(tmp_path: Path, victims: str) -> None:
    """Server, engine and worker of ``-tp 2``: whoever is killed first, and whoever hangs meanwhile, nobody stays."""
    with serve(tmp_path / "log", *FLAGS, "-tp", "2", "--distributed-executor-backend", "mp") as server:
        Stream(server.url)
        pids = family(server.process)
        # A server at rest may have started the process that compiles constraints, too.
        (worker,) = (pid for pid in pids if "engine.worker.remote" in psutil.Process(pid).cmdline())
        named = {"S": server.process.pid, "E": server.engine_pid(), "W": worker}
        if victims.startswith("stopped"):
            os.kill(named[victims[8]], signal.SIGSTOP)
            victims = "S"
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(named[victim], signal.SIGKILL)
            # Time for a restart to begin, so that its processes are among those that must go.
            pids = list({*pids, *family(server.process)})
            time.sleep(0.3)
            pids = list({*pids, *family(server.process)})
        assert_gone(pids)
