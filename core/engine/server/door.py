"""The answer to a request that comes while too much waits, given before anything of it is read but its head."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.server.admission import Admission
from engine.server.auth import ApiKeys, route_path
from engine.server.errors import engine_response
from engine.server.identity import clean_id, too_large

#: Where requests go that would have to queue.
GENERATING = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"})


class Door:
    """ASGI, around the application: under overload most requests are refused, and each must cost as little as can be.

    It answers only what the application would answer alike: a request with a key, to a generating route, while the queue is full.
    """

    def __init__(self, app: ASGIApp, admission: Admission, keys: Sequence[str], root_path: str) -> None:
        self._app = app
        self._admission = admission
        self._keys = ApiKeys(app, keys) if keys else None
        self._paths = frozenset(root_path + path for path in GENERATING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or let it in."""
        if self._admission.full() and scope["type"] == "http" and self._shut(scope):
            await self._refuse(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _shut(self, scope: Scope) -> bool:
        if scope["method"] != "POST" or scope["path"] not in self._paths or too_large(scope["headers"]):
            return False
        return self._keys is None or self._keys.allowed(scope)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        error = self._admission.refusal()
        response = engine_response(error, route_path(scope))
        response.headers["x-request-id"] = clean_id(given.decode("latin-1")) or uuid.uuid4().hex
        await response(scope, receive, send)
