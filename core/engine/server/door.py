"""The answer to a request that comes while too much waits, given when no more than its head has been read."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence

import msgspec

from engine.errors import RequestError
from engine.server.admission import Admission
from engine.server.auth import ApiKeys
from engine.server.errors import MESSAGES_PATH, describe, in_messages_shape
from engine.server.identity import clean_id, too_large

Headers = Sequence[tuple[bytes, bytes]]

#: Where requests go that would have to queue, as their targets are written; spelled otherwise they are refused by the application.
GENERATING = frozenset({b"/v1/completions", b"/v1/chat/completions", b"/v1/responses", b"/v1/messages"})


class Door:
    """Under overload most requests are refused, and what each costs is taken from those that are served.

    It answers only what the application would answer alike: a request with a key, to a generating route, while the queue is full.
    """

    def __init__(self, admission: Admission, keys: Sequence[str]) -> None:
        self._admission = admission
        self._keys = ApiKeys(_inside, keys) if keys else None
        # The ids of refusals that bring none: this door's own number, counted on.
        self._door = uuid.uuid4().hex[:20]
        self._refused = itertools.count(1)
        self._told: tuple[object, ...] = ()
        self._answer = b"", b""

    def busy(self) -> bool:
        """Whether requests are refused now."""
        return self._admission.full()

    def refuse(self, target: bytes, headers: Headers) -> bytes | None:
        """The whole answer (429 with Retry-After) to a POST, or None where the application shall answer."""
        path = target.partition(b"?")[0]
        if not self._admission.full() or path not in GENERATING or too_large(headers):
            return None
        if self._keys is not None and not self._keys.allowed({"headers": headers}):
            return None
        given = next((value for name, value in headers if name == b"x-request-id"), b"")
        id = clean_id(given.decode("latin-1")) or f"{self._door}{next(self._refused):012x}"
        before, after = self._parts(path.decode())
        return before + id.encode() + after

    def _parts(self, path: str) -> tuple[bytes, bytes]:
        """The answer before and after the request's id; made anew when what it says has changed."""
        admission = self._admission
        told = path, admission.requests, admission.tokens, admission.retry_after()
        if told != self._told:
            self._told, self._answer = told, _parts(admission.refusal(), path)
        return self._answer


def _parts(error: RequestError, path: str) -> tuple[bytes, bytes]:
    described, status = describe(error)
    if path == MESSAGES_PATH:
        described = in_messages_shape(described, status)
    body = msgspec.json.encode(described)
    head = (
        f"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"retry-after: {error.retry_after}\r\nx-request-id: "
    )
    return head.encode(), b"\r\n\r\n" + body


async def _inside(*arguments: object) -> None:
    raise AssertionError("the door only looks at keys")
