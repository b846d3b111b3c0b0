"""Clients that send or read too slowly, and more connections than there can be (rows 4, 5 and 74 of the robustness table)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import httpx
import pytest

from engine.server.doorstep import plain_request, protocol
from engine.server.patience import PatientProtocol
from tests.core.server.fake_client import FakeClient
from tests.core.server.serving import make_config, on_socket

HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
BODY = b'{"prompt": "a", "max_tokens": 3}'


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(PatientProtocol, "head_seconds", 0.4)
    monkeypatch.setattr(PatientProtocol, "body_seconds", 0.4)
    monkeypatch.setattr(PatientProtocol, "body_rate", 10_000)
    monkeypatch.setattr(PatientProtocol, "read_seconds", 0.6)
    monkeypatch.setattr("engine.server.patience._LOOK", 0.05)


async def connect(url):
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def trickle(url, start, rest, pause=0.05):
    """Send ``start``, then ``rest`` byte by byte until the server has had enough; its answer and how long that took."""
    reader, writer = await connect(url)
    began = time.monotonic()
    answer = asyncio.create_task(reader.read())
    writer.write(start)
    for number in range(len(rest)):
        if answer.done():
            break
        writer.write(rest[number : number + 1])
        await asyncio.sleep(pause)
    got = await asyncio.wait_for(answer, 5)
    writer.close()
    return got, time.monotonic() - began


def assert_late(answer, what):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"retry-after: " in head and b"x-request-id: " in head and b"connection: close" in head
    error = json.loads(body)["error"]
    assert what in error["message"] and error["type"] == "invalid_request_error"


async def test_a_head_that_trickles_is_given_up():
    async with on_socket(FakeClient()) as url:
        answer, took = await trickle(url, b"", HEAD % 30)
        assert_late(answer, "head")
        assert 0.3 < took < 2.5


async def test_a_body_that_trickles_is_given_up_and_holds_no_place():
    client = FakeClient()
    async with on_socket(client) as url:
        answer, took = await trickle(url, HEAD % 1000, b" " * 1000)
        assert_late(answer, "body")
        assert 0.3 < took < 2.5 and not client.running
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.post("/v1/completions", content=BODY, headers={"content-type": "application/json"})).status_code == 200


async def test_a_chunked_body_that_trickles_is_given_up():
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    async with on_socket(FakeClient()) as url:
        answer, _ = await trickle(url, head, b"1\r\n \r\n" * 200)
        assert_late(answer, "body")


async def test_a_slow_body_that_keeps_the_pace_is_served():
    """Every byte that comes buys time: at 20 kB/s a body may take longer than ``body_seconds``."""
    padded = BODY[:-1] + b" " * 20_000 + b"}"
    async with on_socket(FakeClient()) as url:
        reader, writer = await connect(url)
        writer.write((HEAD % len(padded)).replace(b"host: x", b"host: x\r\nconnection: close"))
        for start in range(0, len(padded), 1000):
            writer.write(padded[start : start + 1000])
            await asyncio.sleep(0.05)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("nothing", [b"", b"\r\n" * 100], ids=["silence", "empty lines"])
async def test_a_connection_without_a_request_ends(nothing):
    async with on_socket(FakeClient()) as url:
        answer, took = await trickle(url, b"", nothing)
        assert answer == b"" and took < 2.5


async def test_empty_lines_after_a_request_end_too():
    async with on_socket(FakeClient()) as url:
        answer, took = await trickle(url, HEAD % len(BODY) + BODY, b"\r\n" * 100)
        assert answer.startswith(b"HTTP/1.1 200 ") and took < 2.5


async def test_an_answer_before_the_body_ends_without_words():
    """Refused at its head (415); the body that never ends does not hold the connection."""
    head = (HEAD % 1000).replace(b"application/json", b"text/plain")
    async with on_socket(FakeClient()) as url:
        answer, took = await trickle(url, head, b" " * 200)
        assert answer.startswith(b"HTTP/1.1 415 ") and took < 3


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_stops_reading_is_left(stream):
    """Its request is aborted though it never closes; the buffer is bounded by the socket's and 64 KiB."""
    client = FakeClient()
    fields = {"prompt": "a", "max_tokens": 400, "n": 8, "logprobs": 20, "stream": stream, "ignore_eos": True}
    body = json.dumps(fields).encode()
    async with on_socket(client) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), limit=1024)
        writer.transport.pause_reading()
        writer.write(HEAD % len(body) + body)
        end = time.monotonic() + 15
        while not client.seen and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert client.seen
        while client.running and time.monotonic() < end:
            await asyncio.sleep(0.05)
        assert not client.running
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/health")).status_code == 200
        writer.transport.abort()


async def test_connections_beyond_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (70, 70))
    monkeypatch.setattr("resource.setrlimit", lambda which, limits: None)
    assert protocol(None).most_connections == 6
    monkeypatch.setattr(PatientProtocol, "head_seconds", 5.0)
    async with on_socket(FakeClient()) as url:
        held = [await connect(url) for _ in range(6)]
        await asyncio.sleep(0.1)
        reader, writer = await connect(url)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in answer
        for _, other in [*held, (reader, writer)]:
            other.close()
        await asyncio.sleep(0.2)
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.get("/health")).status_code == 200


async def test_a_full_queue_is_told_at_the_door():
    """Before the body has come; the connection goes on, keys are still asked for, other routes are served."""
    client = FakeClient(delay=0.01)
    config = make_config(max_queued_requests=1, api_keys=("key",))
    async with on_socket(client, config) as url:
        bearer = b"authorization: Bearer key\r\n\r\n"
        reader, writer = await connect(url)
        blocked = asyncio.Event()
        client.generate = held(client.generate, blocked)
        async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer key"}) as http:
            waiting = asyncio.create_task(http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}))
            await asyncio.sleep(0.2)
            for path in (b"/v1/completions", b"/v1/messages"):
                writer.write((HEAD % 1000).replace(b"/v1/completions", path).replace(b"\r\n\r\n", b"\r\nx-request-id: me\r\n" + bearer))
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)
                assert head.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1\r\n" in head and b"x-request-id: me\r\n" in head
                error = json.loads(await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0])))
                assert error["error"]["type"] == "rate_limit_error"
                assert ("type" in error) == (path == b"/v1/messages")
                writer.write(b" " * 1000)
            writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + bearer)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            refused = await http.post("/v1/completions", json={"prompt": "a"}, headers={"authorization": "Bearer other"})
            assert refused.status_code == 401
            assert (await http.post("/v1/./completions", json={"prompt": "a"})).status_code in (404, 429)
            blocked.set()
            assert (await waiting).status_code == 200
            assert (await http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2})).status_code == 200
        writer.close()


async def length_and_rest(reader):
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)
    return head, await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r")[0]))


async def test_connections_that_come_while_the_queue_is_full(monkeypatch):
    """Refused again and again on one connection, in pieces, closed where asked for; the first other request is served."""
    client = FakeClient(delay=0.01)
    async with on_socket(client, make_config(max_queued_requests=1, api_keys=("key",))) as url:
        blocked = asyncio.Event()
        client.generate = held(client.generate, blocked)
        async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer key"}) as http:
            waiting = asyncio.create_task(http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}))
            await asyncio.sleep(0.2)
            reader, writer = await connect(url)
            sound = (HEAD % len(BODY)).replace(b"\r\n\r\n", b"\r\nAuthorization:  Bearer key \r\n\r\n") + BODY
            ids = set()
            for pieces in ([sound], [sound[:-5], sound[-5:]], [sound + sound], [sound[:40], sound[40:]]):
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(0.05)
                for _ in range(b"".join(pieces).count(b"POST")):
                    head, body = await length_and_rest(reader)
                    assert head.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1\r\n" in head and b"queue_full" in body
                    ids.add(head.partition(b"x-request-id: ")[2].split(b"\r")[0])
            assert len(ids) == 5
            closing, other = await connect(url)
            other.write(sound.replace(b"host: x", b"connection: close") + b"what follows")
            assert (await asyncio.wait_for(closing.read(), 3)).count(b"HTTP/1.1 429 ") == 1
            wrong, other = await connect(url)
            other.write(sound.replace(b"Bearer key", b"Bearer other"))
            assert (await length_and_rest(wrong))[0].startswith(b"HTTP/1.1 401 ")
            broken, other = await connect(url)
            other.write(sound.replace(b"host: x", b"host x"))
            assert (await asyncio.wait_for(broken.read(), 3)).startswith(b"HTTP/1.1 400 ")
            silent, other = await connect(url)
            assert await asyncio.wait_for(silent.read(), 3) == b""
            late, other = await connect(url)
            other.write(sound[:-5])
            await length_and_rest(late)
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(late.read(), 3) == b""
            later, other = await connect(url)
            blocked.set()
            await waiting
            other.write(sound)
            assert (await length_and_rest(later))[0].startswith(b"HTTP/1.1 200 ")
            assert (await http.get("/metrics")).status_code == 200


def test_only_plain_requests_are_read_at_the_door():
    sound = HEAD % len(BODY) + BODY
    request = plain_request(sound)
    assert request is not None and request.length == len(sound) and not request.last and (b"host", b"x") in request.headers
    for old, new in [
        (b"POST", b"GET"), (b"/v1/completions", b"/v1/models"), (b"HTTP/1.1", b"HTTP/1.0"), (b"host: x", b"host : x"),
        (b"host: x", b"transfer-encoding: chunked"), (b"host: x", b"expect: 100-continue"), (b"host: x", b" folded: x"),
        (b"host: x", b"connection: upgrade"), (b"host: x", b"content-length: 1"), (b"host: x", b"host: \0"), (b"host: x", b"host: a\nb: c"),
        (b"host: x", b"host: a\rb"), (b"content-length: 32", b"content-length: -1"), (b"content-length: 32", b"content-length: 99999999"),
        (b"content-length: 32", b"x: 1"), (b"host: x", b"x" * 9000 + b": 1"), (b"\r\n\r\n", b"\r\n"),
    ]:  # fmt: skip
        assert old in sound and plain_request(sound.replace(old, new)) is None, (old, new)


async def test_the_body_of_a_refused_request_is_not_waited_for_for_ever():
    client = FakeClient()
    async with on_socket(client, make_config(max_queued_requests=1)) as url:
        client.generate = held(client.generate, asyncio.Event())
        async with httpx.AsyncClient(base_url=url) as http:
            waiting = asyncio.create_task(http.post("/v1/completions", json={"prompt": "a", "max_tokens": 2}))
            await asyncio.sleep(0.2)
            answer, took = await trickle(url, HEAD % 1000, b" " * 200)
            assert answer.startswith(b"HTTP/1.1 429 ") and answer.count(b"HTTP/1.1") == 1 and took < 3
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


def held(generate, event):
    async def generating(request):
        await event.wait()
        async for output in generate(request):
            yield output

    return generating


async def test_what_follows_a_whole_request_does_not_take_its_answer(caplog):
    """Nor does it leave an error in the log; a request whose own body is broken is refused once."""
    client = FakeClient(delay=0.02)
    async with on_socket(client) as url:
        answer, _ = await trickle(url, HEAD % len(BODY) + BODY + b"\x00 garbage\r\n\r\n", b"")
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1 and b"connection: close" in answer
        chunked = (HEAD % 0).replace(b"content-length: 0", b"transfer-encoding: chunked")
        answer, _ = await trickle(url, chunked + b"5\r\n{    \r\nxyz\r\n", b"")
        assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
    assert "Exception" not in caplog.text and "failed" not in caplog.text
