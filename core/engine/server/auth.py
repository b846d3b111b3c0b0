"""The API key: every path but liveness needs it."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from engine.caller import CALLER
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
        number = 0 if scope["type"] == "lifespan" else self.allowed(scope)
        if number or scope["type"] == "lifespan" or route_path(scope) in OPEN_PATHS:
            if number:
                CALLER.set(f"key{number}")
                scope.setdefault("state", {})["key"] = CALLER.get()
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        response = error_response(
            "The API key is missing or wrong. Send it as: Authorization: Bearer KEY (or x-api-key: KEY).",
            401,
            code="invalid_api_key",
            headers={"www-authenticate": _challenge(route_path(scope))},
            path=route_path(scope),
        )
        await response(scope, receive, send)

    def allowed(self, scope: Scope) -> int:
        """Which of the keys the request brings, counted from 1; 0 where it brings none."""
        # Every key is compared, each in constant time.
        given = _given(scope)
        matches = [True in [hmac.compare_digest(one, key) for one in given] for key in self._keys]
        return matches.index(True) + 1 if True in matches else 0


def _challenge(path: str) -> str:
    """A browser that opens the page asks its user for a name (any) and a password (the key), and keeps sending them."""
    return 'Basic realm="engine: any name, the key as password"' if path == "/ui" or path.startswith("/ui/") else "Bearer"


def _password(credentials: bytes) -> bytes:
    """The password of basic credentials; nothing that can be a key where they are malformed."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _given(scope: Scope) -> list[bytes]:
    """The first bearer token (or basic password) and the first x-api-key."""
    bearer = own = None
    basic = foreign = False
    for name, value in scope["headers"]:
        if name == b"authorization" and bearer is None:
            scheme, _, rest = value.partition(b" ")
            kind = scheme.lower()
            basic = kind == b"basic"
            bearer = rest.strip() if kind == b"bearer" else _password(rest.strip()) if basic else b""
        elif name == b"x-api-key" and own is None:
            own = value.strip()
        elif name == b"sec-fetch-site":
            # A link to the page may stand anywhere.
            foreign = value not in (b"same-origin", b"none") and (scope.get("method"), route_path(scope)) != ("GET", "/ui")
    # A browser sends the password that it keeps with every request, also with one that another site's page makes.
    return [given for given in (None if foreign and basic else bearer, own) if given is not None]


def route_path(scope: Scope) -> str:
    """The path that routes are matched against: the request's, without the root path of a proxy."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path
