"""The engine process dies or freezes under streams: it is started again, and every answer is the one it would have been."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from engine.plugin.testing.checkpoint import write_tiny_checkpoint
from tests.core.plugin.packages import install
from tests.integration.serving import RunningServer, serve

FLAGS = ("demo", "--disable-uvicorn-access-log", "--max-num-seqs", "32", "--engine-silence-timeout", "3")
#: Whatever an answer depends on: greedy, drawn with a seed, penalties, a grammar, log-probabilities, stop strings, several choices.
BODIES: tuple[dict[str, Any], ...] = (
    {"prompt": "On and on and", "temperature": 0, "max_tokens": 600, "ignore_eos": True},
    {"prompt": "Draw", "temperature": 1, "seed": 7, "max_tokens": 600, "ignore_eos": True},
    {"prompt": "Penalty", "temperature": 0, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "max_tokens": 500, "ignore_eos": True},
    {"prompt": "Data: ", "temperature": 1, "seed": 3, "max_tokens": 300, "guided_regex": "[a-z ]{200,280}"},
    {"prompt": "Scores", "temperature": 0, "logprobs": 2, "max_tokens": 300, "ignore_eos": True},
    {"prompt": "Two", "temperature": 1, "seed": 11, "n": 2, "max_tokens": 400, "ignore_eos": True},
)


def answer(server: RunningServer, body: dict[str, Any]) -> list[tuple[str, str]]:
    """Text and finish reason of each choice, streamed; an error fails."""
    import json

    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    with httpx.stream("POST", f"{server.url}/v1/completions", json={**body, "stream": True}, timeout=120) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                assert "error" not in event, event
                for choice in event["choices"]:
                    texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
                    reasons[choice["index"]] = choice["finish_reason"] or reasons.get(choice["index"], "")
    return [(texts[index], reasons[index]) for index in sorted(texts)]


class Clients:
    """Streams under way, one thread each; ``answers`` and ``seconds`` by number, ``failures`` in words."""

    def __init__(self, server: RunningServer, count: int, bodies: Sequence[dict[str, Any]] = BODIES) -> None:
        self._bodies = bodies
        self.answers: dict[int, list[tuple[str, str]]] = {}
        self.seconds: dict[int, float] = {}
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(server, number), daemon=True) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, server: RunningServer, number: int) -> None:
        began = time.monotonic()
        try:
            self.answers[number] = answer(server, self._bodies[number % len(self._bodies)])
            self.seconds[number] = time.monotonic() - began
        except Exception as error:  # noqa: BLE001 - told by the test
            self.failures.append(f"{number}: {error!r}")

    def under_way(self) -> bool:
        """Whether anybody still waits."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(300)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with serve(tmp_path_factory.mktemp("restart") / "log", *FLAGS) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(server: RunningServer) -> list[list[tuple[str, str]]]:
    """What each body is answered without any death."""
    return [answer(server, body) for body in BODIES]


def kill(server: RunningServer, number: int) -> bool:
    """Signal the engine process, if there is one just now."""
    try:
        os.kill(server.engine_pid(), number)
    except (ValueError, ProcessLookupError):
        return False
    return True


def wait_until_ready(server: RunningServer) -> None:
    """Until the engine serves; the last death may not have been noticed yet."""
    pid = None
    while pid is None or httpx.get(f"{server.url}/health/ready", timeout=60).status_code != 200:
        with contextlib.suppress(ValueError):
            pid = server.engine_pid()
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP], ids=["KILL", "SEGV", "STOP"])
def test_answers_go_on_after_a_death(server: RunningServer, undisturbed: list[list[tuple[str, str]]], number: int) -> None:
    clients = Clients(server, 12)
    time.sleep(0.4)
    pid = server.engine_pid()
    os.kill(pid, number)
    clients.join()
    assert clients.failures == []
    assert [clients.answers[at] for at in range(12)] == [undisturbed[at % len(BODIES)] for at in range(12)]
    assert server.engine_pid() != pid
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert server.pages_used() == 0


SLOW = pytest.mark.slow  # a worker is silent for 30 s before it counts as frozen


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSEGV, pytest.param(signal.SIGSTOP, marks=SLOW)], ids=["KILL", "SEGV", "STOP"]
)
def test_answers_go_on_after_the_death_of_a_worker(tmp_path: Path, number: int) -> None:
    with serve(tmp_path / "log", *FLAGS, "--tensor-parallel-size", "2") as server:
        bodies = [body | {"max_tokens": 200} for body in BODIES]
        before = Clients(server, len(bodies), bodies)
        before.join()
        expected = [before.answers[at] for at in range(len(bodies))]
        clients = Clients(server, len(bodies), bodies)
        time.sleep(0.3)
        (worker,) = (
            child for child in psutil.Process(server.process.pid).children(recursive=True) if "engine.worker.remote" in child.cmdline()
        )
        os.kill(worker.pid, number)
        clients.join()
        assert clients.failures == [] and [clients.answers[at] for at in range(len(bodies))] == expected
        assert f"Worker 1 (pid {worker.pid})" in server.log.read_text()


def test_health_is_truthful_while_it_starts_again(server: RunningServer) -> None:
    kill(server, signal.SIGKILL)
    seen: list[tuple[int, int]] = []
    end = time.monotonic() + 30
    # The first answer may come before the death is noticed.
    while time.monotonic() < end and (503 not in [ready for ready, _ in seen] or seen[-1][0] != 200):
        seen.append((httpx.get(f"{server.url}/health/ready").status_code, httpx.get(f"{server.url}/health/live").status_code))
    assert (503, 200) in seen and seen[-1] == (200, 200)
    assert all(live == 200 for _, live in seen)


def test_one_that_is_stopped_while_it_starts_is_started_again(server: RunningServer, undisturbed: list[list[tuple[str, str]]]) -> None:
    first = server.engine_pid()
    kill(server, signal.SIGKILL)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(ValueError):
            if server.engine_pid() != first:
                break
    stopped = server.engine_pid()
    os.kill(stopped, signal.SIGSTOP)
    assert answer(server, BODIES[0]) == undisturbed[0]
    assert server.engine_pid() != stopped


def test_a_request_that_comes_meanwhile_is_served(server: RunningServer, undisturbed: list[list[tuple[str, str]]]) -> None:
    kill(server, signal.SIGKILL)
    time.sleep(0.1)
    assert answer(server, BODIES[0]) == undisturbed[0]


#: Deaths of each of the four parts of the long test.
DEATHS = int(os.environ.get("ENGINE_DEATHS", "25"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_deaths_lose_nothing(server: RunningServer, undisturbed: list[list[tuple[str, str]]], seed: int) -> None:
    calm = Clients(server, 32)
    calm.join()
    chance = random.Random(seed)
    deaths = rounds = 0
    seconds: list[float] = []
    told = len(server.log.read_text())
    # A signal to a process that has got one already is no further death.
    struck: set[int] = set()
    while deaths < DEATHS:
        clients = Clients(server, 32)
        while clients.under_way() and deaths < DEATHS:
            if chance.random() < 0.8:
                # Mostly while it serves; else also while it starts.
                wait_until_ready(server)
            time.sleep(chance.uniform(0.02, 1.5))
            with contextlib.suppress(ValueError, psutil.NoSuchProcess):
                if not clients.under_way() or (pid := server.engine_pid()) in struck:
                    continue
                struck.add(pid)
                deaths += kill(server, chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP]))
        clients.join()
        rounds += 1
        assert clients.failures == []
        assert [clients.answers[at] for at in range(32)] == [undisturbed[at % len(BODIES)] for at in range(32)]
        seconds.extend(clients.seconds.values())
    log = server.log.read_text()[told:]
    again = sorted(float(found) for found in re.findall(r"serves again after ([0-9.]+) s", log))
    added = (statistics.mean(seconds) - statistics.mean(calm.seconds.values())) * rounds / deaths
    print(f"\n{deaths} deaths in {rounds} rounds of 32 streams, none lost; restarts took {statistics.median(again):.1f} s (median),")
    print(f"{again[-1]:.1f} s (longest of {len(again)}); a stream took {statistics.mean(calm.seconds.values()):.1f} s without, ", end="")
    print(f"{statistics.mean(seconds):.1f} s with {deaths / rounds:.1f} deaths: {added:.1f} s for each")
    assert server.pages_used() == 0


DEADLY = '''"""Ends the process that it runs in."""
import os
from engine.plugin import LogitsProcessor, hookimpl
ENGINE_API = 1
class Deadly(LogitsProcessor):
    calls = 0
    def validate(self, arguments): return None
    def apply(self, logits, prompt, output, arguments):
        self.calls += 1
        if self.calls > arguments["after"]:
            os._exit(77)
        return logits
@hookimpl
def engine_create_logits_processor(): return Deadly()
'''


@pytest.mark.parametrize("after", [0, 1], ids=["before its first token", "after each life's first token"])
def test_a_request_that_kills_the_engine_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    (tmp_path / "site").mkdir()
    install(tmp_path / "site", "acme-deadly", DEADLY, name="deadly", kind="logits_processor")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    with serve(tmp_path / "log", *FLAGS) as server:
        expected = [answer(server, body) for body in BODIES]
        clients = Clients(server, len(BODIES))
        time.sleep(0.2)
        processor = {"name": "deadly", "kwargs": {"after": after}}
        body = {"prompt": "Die", "max_tokens": 50, "ignore_eos": True, "logits_processors": [processor]}
        failed = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
        clients.join()
        assert failed.status_code == 500 and "ended the engine process again and again" in failed.json()["error"]["message"]
        assert clients.failures == []
        assert [clients.answers[at] for at in range(len(BODIES))] == expected
        assert httpx.get(f"{server.url}/health").status_code == 200
        log = server.log.read_text()
        assert log.count("Starting the engine again") in (2, 3, 4) and "status 77" in log


def test_weights_that_change_while_they_are_served(tmp_path: Path) -> None:
    """A file that is no longer whole is named at the next start; when it is whole again, requests that waited go on."""
    weights = write_tiny_checkpoint(tmp_path / "model") / "model.safetensors"
    whole = weights.read_bytes()
    body = {"prompt": "On and on", "temperature": 0, "max_tokens": 20, "ignore_eos": True}
    with serve(tmp_path / "log", str(weights.parent), "--disable-uvicorn-access-log") as server:
        expected = answer(server, body)
        weights.write_bytes(whole[: len(whole) // 2])
        kill(server, signal.SIGKILL)
        waiting: list[list[tuple[str, str]]] = []
        client = threading.Thread(target=lambda: waiting.append(answer(server, body)), daemon=True)
        client.start()
        end = time.monotonic() + 60
        while "model.safetensors" not in server.log.read_text() and time.monotonic() < end:
            time.sleep(0.05)
        assert "model.safetensors" in server.log.read_text()
        assert httpx.get(f"{server.url}/health/ready").status_code == 503
        weights.write_bytes(whole)
        client.join(60)
        assert waiting == [expected]
