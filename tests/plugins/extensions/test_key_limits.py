"""Limits by API key: requests under way, tokens per minute, and that no key is ever told."""

from __future__ import annotations

import asyncio
import logging

import pytest

from engine.args import EngineArgs
from engine.args.resolve import resolve
from engine.errors import ConfigError
from engine.plugin import RequestRecord
from engine_plugins.extensions import key_limits
from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import in_memory, make_config

ASK = {"prompt": "abcd", "max_tokens": 6, "ignore_eos": True}
ALICE, BOB = {"authorization": "Bearer alice-secret"}, {"x-api-key": "bob-secret"}


@pytest.fixture
def records(monkeypatch):
    monkeypatch.setattr(key_limits, "_LIMITS", key_limits.KeyLimits())
    return []


def served(records, client=None, **options):
    def finished(record):
        records.append(record)
        key_limits.engine_request_finished(record)

    config = make_config(api_keys=("alice-secret", "bob-secret"), extension_options={"key_limits": options})
    return in_memory(client or FakeClient(), config=config, add_routes=key_limits.engine_add_routes, observers=[finished])


async def test_requests_at_the_same_time(records, caplog):
    caplog.set_level(logging.DEBUG)
    client = FakeClient(delay=0.05)
    async with served(records, client, requests=2) as http:
        running = [asyncio.create_task(http.post("/v1/completions", json={**ASK, "max_tokens": 40}, headers=ALICE)) for _ in range(2)]
        while len(client.running) < 2:
            await asyncio.sleep(0.01)
        for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"):
            refused = await http.post(path, json=ASK, headers=ALICE)
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1" and refused.headers["x-request-id"]
            assert refused.json()["error"]["code"] == "key_limit"
        assert (await http.post("/v1/completions", json=ASK, headers=BOB)).status_code == 200
        own = (await http.get("/key_limits", headers=ALICE)).json()
        assert own["requests"] == 2 and own["allowed"] == {"requests": 2, "tokens_per_minute": 0}
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200, 200]
        assert (await http.post("/v1/completions", json=ASK, headers=ALICE)).status_code == 200
        assert (await http.get("/key_limits")).status_code == 401
    assert {record.key for record in records} == {"key1", "key2"}
    assert "secret" not in caplog.text and "secret" not in repr(key_limits._LIMITS.uses)


async def test_tokens_per_minute(records, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(key_limits.time, "monotonic", lambda: now[0])
    async with served(records, tokens_per_minute=20) as http:
        for _ in range(2):  # 4 + 6 tokens each
            assert (await http.post("/v1/completions", json=ASK, headers=ALICE)).status_code == 200
            now[0] += 10
        refused = await http.post("/v1/completions", json=ASK, headers=ALICE)
        assert refused.status_code == 429 and refused.headers["retry-after"] == "40"
        assert "20 tokens in the last minute" in refused.json()["error"]["message"]
        assert (await http.post("/v1/completions", json=ASK, headers=BOB)).status_code == 200
        now[0] += 40
        assert (await http.post("/v1/completions", json=ASK, headers=ALICE)).status_code == 200
        assert (await http.get("/key_limits", headers=ALICE)).json()["tokens"] == 20


async def test_a_request_that_fails_or_leaves_is_under_way_no_longer(records):
    client = FakeClient(delay=0.05)
    async with served(records, client, requests=1) as http:
        assert (await http.post("/v1/completions", json={**ASK, "n": -1}, headers=ALICE)).status_code == 400
        task = asyncio.create_task(http.post("/v1/completions", json=ASK, headers=ALICE))
        while not client.running:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await http.get("/key_limits", headers=ALICE)).json()["requests"] == 0


def test_quiet_keys_are_forgotten(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(key_limits.time, "monotonic", lambda: now[0])
    limits = key_limits.KeyLimits()
    limits.spend(RequestRecord("r", "m", 1, 1, 0, "stop", 0, 0, 0, key="key1"))
    now[0] = 61.0
    limits.begin("key2")
    assert set(limits.uses) == {"key2"}


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        (["key_limits"], {"key_limits": {"request": 1}}, "has no option 'request'"),
        (["key_limits"], {"key_limits": {"requests": "x"}}, "option 'requests'"),
        (["key_limits"], {"key_limits": 4}, "must have a JSON object"),
        ([], {"key_limits": {}}, "is not enabled"),
    ],
)
def test_wrong_options_end_the_start(names, options, told):
    with pytest.raises(ConfigError, match=told):
        resolve(EngineArgs(model="demo", extensions=names, extension_options=options))


async def test_a_server_without_keys_has_one_user(records):
    def finished(record):
        records.append(record)

    async with in_memory(
        FakeClient(), config=make_config(), add_routes=key_limits.engine_add_routes, observers=[finished]
    ) as http:
        await http.post("/v1/completions", json=ASK)
    assert [record.key for record in records] == [""]
