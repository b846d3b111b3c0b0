"""Around every request: its id, limits on headers, and an answer whatever happens."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.server.auth import route_path
from engine.server.errors import error_response

MAX_HEADERS = 100
MAX_HEADER_BYTES = 64 * 1024
MAX_ID = 128
_ID = re.compile(r"[A-Za-z0-9._:@/+=\-]{1,128}")

log = logging.getLogger("engine.server")


class RequestIdentity:
    """ASGI middleware, the outermost but CORS: sets ``scope["state"]["request_id"]`` and the ``x-request-id`` of every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; a failure that nobody expected becomes a 500 without details."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        answer = _Identified(send, clean_id(given.decode("latin-1")) or uuid.uuid4().hex)
        scope.setdefault("state", {})["request_id"] = answer.request_id
        if too_large(scope["headers"]):
            cause = f"The request's headers are too large; allowed: {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together."
            await error_response(cause, 431, headers={"connection": "close"}, path=route_path(scope))(scope, receive, answer.send)
            return
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            return
        except Exception as error:
            log.error("request %s failed", answer.request_id, exc_info=error)
            if answer.started:
                raise
            cause = f"The server failed on this request (id {answer.request_id})."
            response = error_response(cause, 500, code="internal_error", path=route_path(scope))
            await response(scope, receive, answer.send)


class _Identified:
    """Adds the id to an answer's head."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]}
        await self._send(message)


def too_large(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a request has too many headers or too long ones."""
    return len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES


def clean_id(text: str) -> str | None:
    """A client's request id where it is harmless to repeat, else None."""
    return text if _ID.fullmatch(text) else None
