"""Limits for each API key: requests under way and tokens per minute; GET /key_limits tells a key its own use."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from engine.plugin import RequestRecord, hookimpl

ENGINE_API = 1

_MINUTE = 60.0
_GENERATING = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages")


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one key: ``requests`` at the same time, ``tokens_per_minute`` of prompts and answers together; 0 is no limit."""

    requests: int = 0
    tokens_per_minute: int = 0


class Use:
    """What one key has under way, and what it has used in the last minute."""

    def __init__(self) -> None:
        self.requests = 0
        self.spent: deque[tuple[float, int]] = deque()

    def tokens(self, now: float) -> int:
        """Tokens of the last minute."""
        while self.spent and self.spent[0][0] <= now - _MINUTE:
            self.spent.popleft()
        return sum(tokens for _, tokens in self.spent)


class KeyLimits:
    """Uses by the name of the key that the server gives (never the key). A minute's tokens are counted when their request has ended."""

    def __init__(self) -> None:
        self.options = Options()
        self.uses: dict[str, Use] = {}

    def refusal(self, key: str) -> tuple[str, int] | None:
        """Why a further request is refused, and after how many seconds another may be admitted."""
        use, now = self.uses.get(key), time.monotonic()
        if use is None:
            return None
        most, tokens = self.options.requests, self.options.tokens_per_minute
        if most and use.requests >= most:
            return f"This API key has {use.requests} requests under way; allowed: {most}.", 1
        if tokens and use.tokens(now) >= tokens:
            seconds = math.ceil(use.spent[0][0] + _MINUTE - now)
            return f"This API key has used {use.tokens(now)} tokens in the last minute; allowed: {tokens}.", max(1, seconds)
        return None

    def begin(self, key: str) -> Use:
        """A request of the key begins; those that have been quiet for a minute are forgotten."""
        now = time.monotonic()
        for other in [name for name, use in self.uses.items() if not use.requests and not use.tokens(now)]:
            del self.uses[other]
        use = self.uses.setdefault(key, Use())
        use.requests += 1
        return use

    def spend(self, record: RequestRecord) -> None:
        """A request ended."""
        self.uses.setdefault(record.key, Use()).spent.append((time.monotonic(), record.prompt_tokens + record.output_tokens))


class Limiter:
    """ASGI middleware behind the API key, before every generating route."""

    def __init__(self, app: Any, limits: KeyLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Pass the request on, or answer 429."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or path not in _GENERATING:
            await self._app(scope, receive, send)
            return
        key = scope.get("state", {}).get("key", "")
        refused = self._limits.refusal(key)
        if refused is not None:
            await _refuse(send, *refused)
            return
        use = self._limits.begin(key)
        try:
            await self._app(scope, receive, send)
        finally:
            use.requests -= 1


async def _refuse(send: Callable[[dict[str, Any]], Awaitable[None]], message: str, seconds: int) -> None:
    error = {"message": message, "type": "rate_limit_error", "param": None, "code": "key_limit"}
    body = json.dumps({"object": "error", "error": error}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "retry-after": str(seconds)}
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 429, "headers": sent})
    await send({"type": "http.response.body", "body": body})


#: One per front-end process: the hooks of an extension are functions of its module.
_LIMITS = KeyLimits()


@hookimpl
def engine_add_routes(app: Any) -> None:
    limits = _LIMITS
    given = getattr(app.state, "extension_options", {})
    limits.options = msgspec.convert(given.get("key_limits", {}), Options)

    def key_limits(request: Any) -> dict[str, Any]:
        use = limits.uses.get(getattr(request.state, "key", ""), Use())
        return {"requests": use.requests, "tokens": use.tokens(time.monotonic()), "allowed": msgspec.to_builtins(limits.options)}

    from starlette.requests import Request

    key_limits.__annotations__["request"] = Request
    app.get("/key_limits")(key_limits)
    app.add_middleware(Limiter, limits=limits)


@hookimpl
def engine_request_finished(record: RequestRecord) -> None:
    _LIMITS.spend(record)
