"""Server-sent events, and work that ends with the connection it is for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from engine.errors import EngineError
from engine.server.errors import describe, error_object

#: Seconds that a client may leave a piece unread before its request is given up.
SEND_SECONDS = 60.0
DONE = b"data: [DONE]\n\n"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

log = logging.getLogger("engine.server")
T = TypeVar("T")


class Disconnected(Exception):
    """The client went away before its answer was ready."""


def data_line(value: Any) -> bytes:
    """One event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


class EventStream(Response):
    """Sends what ``events`` yields as data lines, then ``[DONE]``. When the client goes away the iterator is closed at once."""

    media_type = "text/event-stream"
    #: The bytes after the last event.
    last = DONE

    def __init__(self, events: AsyncIterator[Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(None, 200, {**HEADERS, **(headers or {})})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            with contextlib.suppress(asyncio.CancelledError, Disconnected, TimeoutError):
                await sending

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        events = self._events
        try:
            async for event in events:
                await _send_piece(send, self.piece(event))
        except EngineError as error:
            await _send_piece(send, self.failure(*describe(error)))
        except TimeoutError:
            raise
        except Exception as error:
            log.error("a stream failed", exc_info=error)
            await _send_piece(send, self.failure(error_object("The server failed on this request.", 500, code="internal_error"), 500))
        finally:
            await _close(events)
        if self.last:
            await _send_piece(send, self.last)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def piece(self, event: Any) -> bytes:
        """One event as it is sent."""
        return data_line(event)

    def failure(self, described: dict[str, Any], status: int) -> bytes:
        """The event of a failure, from the error object and the status that an answer would have had."""
        return data_line(described)


class NamedEventStream(EventStream):
    """Events that are objects with a ``type``, sent under that name; the stream ends with the last of them."""

    last = b""

    def piece(self, event: Any) -> bytes:
        """One event with its name."""
        kind: str = event["type"]
        return f"event: {kind}\n".encode() + data_line(event)


async def until_disconnect(request: Request, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled when the client goes away (then raises Disconnected)."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.create_task(_disconnect(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Disconnected
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _send_piece(send: Send, piece: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _close(events: AsyncIterator[Any]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
