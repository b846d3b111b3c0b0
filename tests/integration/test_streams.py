"""Many streams at once, some cut off by their clients: the others get what they would have got alone, and nothing leaks."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.data import has_shared, shared
from tests.integration.serving import RunningServer, serve

STREAMS = 64
TOPICS = ["Once upon a time", "Lily and Tom", "The big dog", "One day", "A little bird", "He was sad", "Mom said", "The sun"]


def bodies(seed: int) -> list[dict[str, Any]]:
    """Requests of random lengths, half greedy, half sampled with a seed."""
    dice = random.Random(seed)
    found = []
    for index in range(STREAMS):
        sampled = index % 2 == 1
        found.append(
            {
                "prompt": " ".join(dice.choices(TOPICS, k=dice.randint(1, 12))),
                "max_tokens": dice.randint(4, 80),
                "temperature": 0.8 if sampled else 0.0,
                "seed": index,
                "stream": True,
                "ignore_eos": True,
            }
        )
    return found


async def read(client: httpx.AsyncClient, body: dict[str, Any], cut_after: int | None = None) -> str:
    """The streamed text; ``cut_after``: close the connection after so many pieces."""
    text, pieces = "", 0
    async with client.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            text += json.loads(line[6:])["choices"][0]["text"]
            pieces += 1
            if cut_after is not None and pieces >= cut_after:
                return text
    return text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    model = str(shared("stories260k")) if has_shared("stories260k") else "demo"
    # Few pages: the streams compete for them, so preemption is part of the test.
    flags = ["--dtype", "float32", "--num-gpu-blocks-override", "200", "--max-model-len", "400"]
    with serve(tmp_path_factory.mktemp("streams") / "log", model, *flags, "--disable-uvicorn-access-log") as running:
        yield running


async def test_streams_survive_disconnects_of_others(server: RunningServer) -> None:
    before = server.engine_pid()
    requests = bodies(seed=7)
    limits = httpx.Limits(max_connections=STREAMS)
    async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as client:
        alone = [await read(client, body) for body in requests]
        dice = random.Random(3)
        cuts = [dice.randint(1, 3) if dice.random() < 0.2 else None for _ in requests]
        assert sum(cut is not None for cut in cuts) >= 8
        together = await asyncio.gather(*(read(client, body, cut) for body, cut in zip(requests, cuts, strict=True)))
    for body, solo, got, cut in zip(requests, alone, together, cuts, strict=True):
        if cut is None:
            assert got == solo, body
        else:
            assert solo.startswith(got)
    assert_nothing_left(server)
    assert server.engine_pid() == before


async def test_closing_an_unstreamed_request_frees_its_pages(server: RunningServer) -> None:
    body = {**bodies(seed=1)[0], "stream": False, "max_tokens": 380, "prompt": "Once"}
    async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
        task = asyncio.create_task(client.post("/v1/completions", json=body))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert_nothing_left(server)


def assert_nothing_left(server: RunningServer) -> None:
    """No page stays in use once the engine has taken its next step."""
    deadline = time.monotonic() + 5
    while server.pages_used() > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.pages_used() == 0


def test_log_names_no_prompt(server: RunningServer) -> None:
    text = Path(server.log).read_text()
    assert "Once upon" not in text
    assert "Traceback" not in text
