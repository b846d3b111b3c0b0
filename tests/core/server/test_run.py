"""Ports, loading, and the end of a server."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from engine.errors import PortError
from engine.server.loading import answering_not_ready
from engine.server.run import _Ending, bind, serve
from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer
from tests.core.server.serving import create_app, make_config, on_socket


def test_a_port_in_use_is_told_before_anything_loads():
    first = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(PortError, match=str(port)) as caught:
        bind("127.0.0.1", port)
    assert caught.value.status == 6 and f"ss -ltnp 'sport = :{port}'" in caught.value.line()
    first.close()
    bind("127.0.0.1", port).close()
    with pytest.raises(PortError, match="no address of this machine"):
        bind("no.such.host.invalid", 8000)
    with pytest.raises(PortError):
        bind("127.0.0.1", 99999)


async def test_requests_during_loading_are_answered():
    listening = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url) as http:
        async with answering_not_ready(listening):
            answer = await http.get("/health")
            assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
            assert (await http.post("/v1/completions", json={"prompt": "a"})).json()["error"]["code"] == "loading"
        ending = _Ending()
        app = create_app(make_config(), FakeClient(), byte_tokenizer())
        task = asyncio.create_task(serve(app, make_config().server, listening, ending))
        for _ in range(100):
            answer = await http.get("/health")
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.02)
        assert answer.status_code == 200
        ending._end(0)
        await asyncio.wait_for(task, 10)
    listening.close()


async def test_running_requests_are_finished_at_the_end():
    client = FakeClient(delay=0.01)
    async with httpx.AsyncClient() as http:
        async with on_socket(client) as url:
            task = asyncio.create_task(http.post(f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 30}))
            while not client.running:
                await asyncio.sleep(0.01)
        answer = await task
        assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 30


async def test_a_signal_during_the_start_ends_it():
    ending = _Ending()
    asyncio.get_running_loop().call_later(0.05, ending._end, 130)
    assert await ending.unless(asyncio.sleep(60)) is False and ending.status == 130
    assert await _Ending().unless(asyncio.sleep(0)) is True

    async def fails():
        raise PortError("x")

    with pytest.raises(PortError):
        await _Ending().unless(fails())


async def test_a_signal_between_the_start_and_the_server_ends_it():
    """While what has started is reported nobody waits for signals."""
    ending, listening = _Ending(), bind("127.0.0.1", 0)
    ending._end(0)
    app = create_app(make_config(), FakeClient(), byte_tokenizer())
    await asyncio.wait_for(serve(app, make_config().server, listening, ending), 10)
    listening.close()


async def test_pipelined_and_half_closed_connections():
    async with on_socket(FakeClient()) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\nGET http://evil/version HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        text = await asyncio.wait_for(reader.read(), 5)
        assert text.count(b"HTTP/1.1 200") == 2 and b'"version"' in text
        writer.close()


def test_ipv6():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        bind("::1", 0).close()
    except PortError:
        pytest.skip("no IPv6 address here")
