"""Every bad request is refused with its status and field, the engine untouched and neighbours' streams unchanged."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from tests.core.server.bad_inputs import BAD, encoded
from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import in_memory, on_socket

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("name", BAD)
async def test_refused(name):
    path, body, status, param = BAD[name]
    async with in_memory() as http:
        start = time.monotonic()
        answer = await http.post(path, content=encoded(body), headers=JSON)
        assert time.monotonic() - start < 2.0
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert error["param"] == param, error
        assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")
        assert error["message"] and error["code"] and "Traceback" not in answer.text
        assert answer.headers["x-should-retry"] == "false" and answer.headers["x-request-id"]
        assert not http.engine.seen


@pytest.mark.parametrize(
    "name", ["malformed", "trailing garbage", "NaN", "duplicate key", "deep nesting", "huge integer", "not UTF-8", "lone surrogate"]
)
async def test_json_is_refused_with_a_position(name):
    path, body, _, _ = BAD[name]
    async with in_memory() as http:
        message = (await http.post(path, content=encoded(body), headers=JSON)).json()["error"]["message"]
        positions = {
            "malformed": "character 15", "trailing garbage": "character 16", "NaN": "character 31", "duplicate key": "character 33",
            "deep nesting": "character 74", "huge integer": "4300 digits (character 30)", "not UTF-8": "byte 12",
            "lone surrogate": "character 13",
        }  # fmt: skip
        assert positions[name] in message


async def test_duplicate_keys_in_lists_of_objects_are_found():
    async with in_memory() as http:
        fine = {"messages": [{"role": "user", "content": "a", "name": "x"}, {"role": "user", "content": "b", "name": "x"}], "max_tokens": 2}
        assert (await http.post("/v1/chat/completions", json=fine)).status_code == 200
        body = b'{"messages": [{"role": "user", "content": "a"}, {"role": "user", "x": {}, "role": "user"}]}'
        answer = await http.post("/v1/chat/completions", content=body, headers=JSON)
        assert answer.status_code == 400 and "'role' twice (character 74)" in answer.json()["error"]["message"]


async def test_over_length_is_told_in_the_words_that_clients_know():
    async with in_memory() as http:
        for body in ({"prompt": "hi " * 400, "max_tokens": 500}, {"prompt": [1] * 600}):
            error = (await http.post("/v1/completions", json=body)).json()["error"]
            assert error["code"] == "context_length_exceeded"
            assert "This model's maximum context length is 512 tokens. However, you requested" in error["message"]


async def test_wrong_route_method_type_size():
    async with in_memory() as http:
        answer = await http.get("/v1/completions")
        assert answer.status_code == 405 and answer.headers["allow"] == "POST" and "error" in answer.json()
        assert (await http.request("BREW", "/v1/models")).status_code == 405
        for path in ("/nothing", "//v1/models", "/v1/models/", "/v1/%2e%2e/health"):
            answer = await http.get(path)
            assert answer.status_code == 404 and "error" in answer.json(), path
        for headers in ({"content-type": "text/plain"}, {}, {**JSON, "content-encoding": "gzip"}):
            answer = await http.post("/v1/completions", content=b'{"prompt": "a"}', headers=headers)
            assert answer.status_code == 415 and "error" in answer.json()
        answer = await http.post("/v1/completions", content=b"{}", headers={**JSON, "content-length": str(2**40)})
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"

        async def endless():
            for _ in range(1000):
                yield b" " * 2**20

        assert (await http.post("/v1/completions", content=endless(), headers=JSON)).status_code == 413
        assert (await http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})).status_code == 200


async def test_too_many_headers_on_a_socket():
    async with on_socket(FakeClient()) as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.get("/health", headers={f"x-{number}": "a" for number in range(150)})
        assert answer.status_code == 431 and "error" in answer.json() and answer.headers["x-request-id"]
        answer = await http.get("/health", headers={"x-large": "a" * 100_000})
        assert answer.status_code == 431
        assert (await http.get("/health")).status_code == 200
    async with on_socket(FakeClient()) as url:
        host, port = url.removeprefix("http://").split(":")
        large = b"GET /health HTTP/1.1\r\nx: " + b"a" * 2**22 + b"\r\n\r\n"
        for head in (large, b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\n\r\n", b"hello\r\n\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head)
            text = await asyncio.wait_for(reader.read(), 5)
            assert text.split(b" ")[1] in (b"431", b"414", b"400") and b'"error"' in text
            writer.close()


async def test_unknown_fields_are_accepted_and_named():
    async with in_memory() as http:
        answer = await http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1, "temprature": 1, "x\r\ny": 2})
        assert answer.status_code == 200
        assert answer.headers["x-ignored-fields"] == "temprature, x??y"
        assert "engine:ignored_request_fields_total{model_name=\"toy\"} 2.0" in (await http.get("/metrics")).text


async def test_ids_are_echoed_only_where_harmless():
    async with in_memory() as http:
        assert (await http.get("/version", headers={"x-request-id": "abc-1"})).headers["x-request-id"] == "abc-1"
        for bad in ("a b", "x" * 200, "a\tb", "<script>"):
            assert (await http.get("/version", headers={"x-request-id": bad})).headers["x-request-id"] != bad
        for _ in range(2):
            body = {"prompt": "a", "max_tokens": 1, "request_id": "same"}
            answer = await http.post("/v1/completions", json=body, headers={"x-request-id": "same"})
            assert answer.json()["id"] == "cmpl-same"
        assert len({request.id for request in http.engine.seen}) == 2


async def test_neighbours_and_the_engine_go_on():
    """A long stream is the same with every bad request sent beside it, and with other clients leaving."""
    client = FakeClient(delay=0.005)
    body = {"prompt": "tell me", "max_tokens": 120, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    async with on_socket(client) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
        alone = await read_stream(http, body)
        beside = asyncio.create_task(read_stream(http, body))
        await asyncio.sleep(0.05)
        for path, bad, status, _ in BAD.values():
            assert (await http.post(path, content=encoded(bad), headers=JSON)).status_code == status
        assert await beside == alone
        assert (await http.get("/health")).status_code == 200
    assert not client.running and len(client.seen) == 2


async def read_stream(http, body):
    lines = []
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                chunk = json.loads(line[6:])
                lines.append((chunk["choices"], chunk.get("usage")))
    return lines
