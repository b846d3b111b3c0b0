"""The API key: every path but liveness needs it."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.server.errors import error_response

#: Paths that answer without a key.
OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/ping"})


class ApiKeys:
    """ASGI middleware. It decides on the very path that the router matches, never on one rebuilt from headers."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] == "lifespan" or route_path(scope) in OPEN_PATHS or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        response = error_response(
            "The API key is missing or wrong. Send it as: Authorization: Bearer KEY (or x-api-key: KEY).",
            401,
            code="invalid_api_key",
            headers={"www-authenticate": "Bearer"},
            path=route_path(scope),
        )
        await response(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        # Every key is compared, each in constant time.
        matches = [hmac.compare_digest(given, key) for given in _given(scope) for key in self._keys]
        return any(matches)


def _given(scope: Scope) -> list[bytes]:
    """The first bearer token and the first x-api-key."""
    bearer = own = None
    for name, value in scope["headers"]:
        if name == b"authorization" and bearer is None:
            scheme, _, rest = value.partition(b" ")
            bearer = rest.strip() if scheme.lower() == b"bearer" else b""
        elif name == b"x-api-key" and own is None:
            own = value.strip()
    return [given for given in (bearer, own) if given is not None]


def route_path(scope: Scope) -> str:
    """The path that routes are matched against: the request's, without the root path of a proxy."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path
