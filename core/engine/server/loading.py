"""Answers every request with 503 while the engine loads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import msgspec

from engine.server.errors import RETRY_AFTER, error_object

#: Seconds and bytes that a request's head may take.
HEAD_SECONDS = 10.0
HEAD_BYTES = 64 * 1024


@contextlib.asynccontextmanager
async def answering_not_ready(listening: socket.socket) -> AsyncIterator[None]:
    """While the block runs, requests on the socket get 503 with Retry-After; the socket stays open afterwards."""
    server = await asyncio.start_server(_answer, sock=listening.dup(), limit=HEAD_BYTES)
    try:
        yield
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        async with asyncio.timeout(HEAD_SECONDS):
            await reader.readuntil(b"\r\n\r\n")
        body = msgspec.json.encode(error_object("The model is being loaded.", 503, code="loading"))
        head = (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nretry-after: {RETRY_AFTER}\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
    writer.close()
