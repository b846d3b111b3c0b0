"""A client that goes away takes its sequences with it, and nobody else's."""

from __future__ import annotations

import asyncio
import random
import time

import httpx
import pytest

from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import on_socket

BODY = {"prompt": "hi", "max_tokens": 400, "temperature": 0}


async def until(condition, seconds=3.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("sequences", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_aborts_within_a_step(stream, sequences):
    client = FakeClient(delay=0.02)
    body = {**BODY, "stream": stream, "n": sequences, "temperature": 1}
    async with on_socket(client) as url, httpx.AsyncClient(base_url=url) as http:
        task = asyncio.create_task(http.post("/v1/completions", json=body))
        await until(lambda: len(client.running) == sequences and client.made and min(client.made.values()) > 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        made = dict(client.made)
        await until(lambda: not client.running, 1.0)
        assert len(client.aborted) == sequences
        assert all(client.made[key] - made[key] <= 2 for key in made)
        assert (await http.get("/health")).status_code == 200


async def test_leaving_while_the_prompt_is_computed():
    client = FakeClient(delay=5.0)
    async with on_socket(client) as url, httpx.AsyncClient(base_url=url) as http:
        task = asyncio.create_task(http.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}], "stream": True}))
        await until(lambda: client.running)
        task.cancel()
        await until(lambda: not client.running, 1.0)


async def test_a_stop_string_aborts_what_the_engine_still_makes():
    client = FakeClient(script=[72] * 300, delay=0.002, per_step=3)
    async with on_socket(client) as url, httpx.AsyncClient(base_url=url) as http:
        text = (await http.post("/v1/completions", json=BODY)).json()["choices"][0]["text"]
        client.aborted.clear()
        answer = (await http.post("/v1/completions", json={**BODY, "stop": text[:4]})).json()
        assert answer["choices"][0]["text"] == "" and answer["choices"][0]["stop_reason"] == text[:4]
        assert answer["usage"]["completion_tokens"] == 4
        assert len(client.aborted) == 1


async def test_some_leave_and_the_others_do_not_notice():
    client = FakeClient(delay=0.002)
    generator = random.Random(4)
    async with on_socket(client) as url, httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=80)) as http:

        async def ask(number, leaves):
            body = {"prompt": f"question {number}", "max_tokens": 20 + number, "temperature": 0, "stream": True}
            text = ""
            async with http.stream("POST", "/v1/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    text += line
                    if leaves and len(text) > 2000:
                        return None
            return text.replace(answer.headers["x-request-id"], "")

        leaving = [generator.random() < 0.2 for _ in range(64)]
        together = await asyncio.gather(*(ask(number, leaves) for number, leaves in enumerate(leaving)))
        await until(lambda: not client.running)
        for number in (3, 20, 63):
            if not leaving[number]:
                assert strip(together[number]) == strip(await ask(number, False))
        assert any(leaving) and len(client.aborted) >= sum(leaving) - 2


def strip(text):
    import re

    return re.sub(r'"(id|created)":("[^"]*"|\d+)', "", text)
