"""More waits than may: the next is refused at once with 429, those that wait are served, and places come back."""

from __future__ import annotations

import asyncio

import pytest

from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import in_memory, make_config

BODY = {"model": "toy", "prompt": "abc", "max_tokens": 2, "temperature": 0}


async def burst(http, count, **fields):
    return await asyncio.gather(*(http.post("/v1/completions", json={**BODY, **fields}) for _ in range(count)))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue_refuses(stream):
    async with in_memory(FakeClient(delay=0.2), config=make_config(max_queued_requests=3)) as http:
        waiting = [asyncio.create_task(http.post("/v1/completions", json={**BODY, "stream": stream})) for _ in range(3)]
        await asyncio.sleep(0.1)
        refused = await http.post("/v1/completions", json={**BODY, "stream": stream})
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert error["type"] == "rate_limit_error" and error["code"] == "queue_full" and "--max-queued-requests 3" in error["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
        assert (await http.post("/v1/completions", json=BODY)).status_code == 200


async def test_a_burst_is_cut_at_the_limit():
    async with in_memory(FakeClient(delay=0.05), config=make_config(max_queued_requests=5)) as http:
        statuses = [answer.status_code for answer in await burst(http, 40)]
        assert set(statuses) == {200, 429} and statuses.count(200) >= 5


async def test_tokens_are_counted_too():
    async with in_memory(FakeClient(delay=0.2), config=make_config(max_queued_tokens=100)) as http:
        first = asyncio.create_task(http.post("/v1/completions", json={**BODY, "prompt": "x" * 120}))
        await asyncio.sleep(0.1)
        refused = await http.post("/v1/completions", json=BODY)
        assert refused.status_code == 429 and "120 prompt tokens" in refused.json()["error"]["message"]
        assert (await first).status_code == 200


async def test_places_come_back_from_those_who_left():
    async with in_memory(FakeClient(delay=5), config=make_config(max_queued_requests=2)) as http:
        gone = [asyncio.create_task(http.post("/v1/completions", json={**BODY, "n": 2, "temperature": 1}))]
        await asyncio.sleep(0.1)
        assert (await http.post("/v1/completions", json=BODY)).status_code == 429
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        http.engine.delay = 0.0
        assert (await http.post("/v1/completions", json=BODY)).status_code == 200


async def test_no_limit():
    async with in_memory(FakeClient(delay=0.05), config=make_config(max_queued_requests=None)) as http:
        assert {answer.status_code for answer in await burst(http, 60)} == {200}
