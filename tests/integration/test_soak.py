"""A long mixed load with aborts and engine restarts: memory stays flat, and no page stays in use."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.serving import RunningServer, serve

#: Seconds of load; a fifth of them warms up, and the engine is killed after a third and after half of them.
SECONDS = float(os.environ.get("ENGINE_SOAK_SECONDS", "1200"))
CLIENTS = 12
MOST_MB_A_MINUTE = 1.0
WORDS = ("once", "upon", "a", "time", "there", "was", "small", "brown", "dog", "who", "lived", "near", "the", "sea", "and", "sang")


class Load:
    """Clients of every kind; ``answers`` counts what became of their requests."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.answers: Counter[str] = Counter()

    async def client(self, dice: random.Random, end: float) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=120) as http:
            while time.monotonic() < end:
                try:
                    await self._once(http, dice)
                except httpx.HTTPError as error:
                    self.answers[type(error).__name__] += 1
                await asyncio.sleep(dice.random() * 0.1)

    async def _once(self, http: httpx.AsyncClient, dice: random.Random) -> None:
        body = {
            "prompt": " ".join(dice.choices(WORDS, k=dice.randint(1, 120))), "max_tokens": dice.randint(1, 150), "ignore_eos": True,
            "temperature": dice.choice([0, 0.8]), "n": dice.choice([1, 1, 1, 3]), "logprobs": dice.choice([None, None, 3]),
        }  # fmt: skip
        kind = dice.random()
        if kind < 0.1:
            answer = await http.post("/v1/completions", json={**body, "temperature": -1})
        elif kind < 0.2:
            answer = await http.post("/v1/completions", json={**body, "guided_regex": f"[a-{dice.choice('cdefgh')}]+", "ignore_eos": False})
        elif kind < 0.5:
            answer = await http.post("/v1/completions", json=body)
        else:
            await self._stream(http, body, dice.randint(1, 40) if kind < 0.75 else None)
            return
        self.answers[str(answer.status_code)] += 1

    async def _stream(self, http: httpx.AsyncClient, body: dict[str, object], cut: int | None) -> None:
        lines = 0
        async with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                lines += 1
                if cut is not None and lines > cut:
                    self.answers["left"] += 1
                    return
                if line == "data: [DONE]":
                    self.answers["streamed"] += 1


class Memory:
    """Resident MB over time, of the front end and of the engine process that lives."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.front: list[tuple[float, float]] = []
        self.engine: list[tuple[float, float]] = []

    async def watch(self, end: float) -> None:
        pid = 0
        front = psutil.Process(self.server.process.pid)
        while time.monotonic() < end:
            now = time.monotonic()
            self.front.append((now, front.memory_info().rss / 2**20))
            try:
                alive = self.server.engine_pid()
                if alive != pid:
                    pid, self.engine = alive, []
                self.engine.append((now, psutil.Process(alive).memory_info().rss / 2**20))
            except (ValueError, psutil.NoSuchProcess):
                pass  # it is just being started again
            await asyncio.sleep(1)


def slope(points: list[tuple[float, float]]) -> float:
    """MB per minute, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return 60 * rise / sum((x - mean_x) ** 2 for x, _ in points)


async def kill(server: RunningServer, after: float) -> None:
    await asyncio.sleep(after)
    os.kill(server.engine_pid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_soak(tmp_path: Path) -> None:
    flags = ["--max-num-seqs", "16", "--max-model-len", "512", "--num-gpu-blocks-override", "120", "--disable-uvicorn-access-log"]
    with serve(tmp_path / "log", "demo", *flags, "--disable-log-requests") as server:
        load, memory = Load(server), Memory(server)
        begin = time.monotonic()
        end = begin + SECONDS
        clients = [load.client(random.Random(number), end) for number in range(CLIENTS)]
        await asyncio.gather(*clients, memory.watch(end), kill(server, SECONDS / 3), kill(server, SECONDS / 2))
        warm = begin + SECONDS / 5
        front = [point for point in memory.front if point[0] > warm]
        # A life of the engine warms up anew.
        engine = [point for point in memory.engine if point[0] > memory.engine[0][0] + SECONDS / 5]
        print(f"\n{dict(load.answers)}; front end {front[0][1]:.0f} to {front[-1][1]:.0f} MB, {slope(front):+.2f} MB/min; ", end="")
        print(f"engine {engine[0][1]:.0f} to {engine[-1][1]:.0f} MB, {slope(engine):+.2f} MB/min over {len(engine)} s")
        deadline = time.monotonic() + 10
        while server.pages_used() > 0 and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert server.pages_used() == 0
        assert set(load.answers) == {"200", "400", "streamed", "left"}
        assert slope(front) <= MOST_MB_A_MINUTE and slope(engine) <= MOST_MB_A_MINUTE
        assert "Traceback" not in server.log.read_text()
