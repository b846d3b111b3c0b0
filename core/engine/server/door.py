"""The answer to a request that comes while too much waits, given when no more than its head has been read."""

from __future__ import annotations

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

    def refuse(self, target: bytes, headers: Headers) -> bytes | None:
        """The whole answer (429 with Retry-After) to a POST, or None where the application shall answer."""
        path = target.partition(b"?")[0]
        if not self._admission.full() or path not in GENERATING or too_large(headers):
            return None
        if self._keys is not None and not self._keys.allowed({"headers": headers}):
            return None
        return _answer(self._admission.refusal(), path.decode(), headers)


def _answer(error: RequestError, path: str, headers: Headers) -> bytes:
    described, status = describe(error)
    if path == MESSAGES_PATH:
        described = in_messages_shape(described, status)
    body = msgspec.json.encode(described)
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    head = (
        f"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"retry-after: {error.retry_after}\r\nx-request-id: {clean_id(given.decode('latin-1')) or uuid.uuid4().hex}\r\n\r\n"
    )
    return head.encode() + body


async def _inside(*arguments: object) -> None:
    raise AssertionError("the door only looks at keys")
