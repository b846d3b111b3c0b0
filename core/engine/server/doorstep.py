"""A connection that comes while too much waits is looked at from outside: most of what it brings is refused, and need cost no more."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from typing import Any, NamedTuple

from engine.server.door import GENERATING, Door, Headers
from engine.server.patience import PatientProtocol

#: Descriptors that are left for everything but connections.
_RESERVED = 64
#: Heads up to this size are read here, and of bodies so much is dropped; what is longer goes in, to be refused there.
_LONGEST_HEAD = 8 * 1024
_LONGEST_BODY = 64 * 1024
_LINES = {b"POST " + path + b" HTTP/1.1": path for path in GENERATING}
#: A request with one of these is for the whole protocol.
_SPECIAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class Request(NamedTuple):
    """A sound, plain POST to a generating route. ``length``: bytes of it in all. ``last``: it asks for the connection's end."""

    target: bytes
    headers: Headers
    length: int
    last: bool


class DoorstepProtocol(PatientProtocol):
    """Answers refusals itself while the queue is full; whatever else comes enters, and is served as on any connection.

    Only a connection that comes while the queue is full begins outside, where uvicorn does not know it yet.
    """

    _outside = False
    #: Bytes of a refused request that are still to come, and whether the connection ends after them.
    _drop = 0
    _last = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        most = self.most_connections
        if self.door is None or not self.door.busy() or (most is not None and len(self.connections) >= most):
            super().connection_made(transport)
            return
        self._outside = True
        self.transport = transport
        self.connections.add(self)
        self._wait(self.head_seconds)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        refused = False
        while self._outside and data and not (self._last and not self._drop):
            if self._drop:
                dropped = min(self._drop, len(data))
                self._drop -= dropped
                data = data[dropped:]
                continue
            request = plain_request(data)
            answer = self.door.refuse(request.target, request.headers) if self.door is not None and request is not None else None
            if answer is None or request is None:
                self._enter()
            else:
                self.transport.write(answer)
                self._drop, self._last, refused = request.length, request.last, True
        if not self._outside:
            super().data_received(data)
        elif self._drop:
            # One time for the whole body, however it trickles.
            if refused:
                self._wait(self.body_seconds)
        elif self._last:
            self.transport.close()
        else:
            self._wait(self.timeout_keep_alive)

    def pause_writing(self) -> None:
        """The send buffer is full."""
        if self._outside:
            # Refusals that nobody reads.
            self.transport.abort()
        else:
            super().pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        if not self._outside:
            super().resume_writing()

    def _enter(self) -> None:
        """Now it is a connection like others."""
        self._outside = False
        self._stop_waiting()
        self.connections.discard(self)
        super().connection_made(self.transport)

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self.transport.abort if self._drop else self.transport.close)


def plain_request(data: bytes) -> Request | None:
    """The request that ``data`` begins with; None where its head is not whole, or anything about it is out of the ordinary."""
    end = data.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    if end < 0:
        return None
    head = data[:end]
    line, *lines = head.split(b"\r\n")
    target = _LINES.get(line)
    if target is None or b"\0" in head or not head.count(b"\n") == head.count(b"\r") == len(lines):
        return None
    headers = []
    for each in lines:
        name, separator, value = each.partition(b":")
        if not separator or not name.replace(b"-", b"").isalnum():
            return None
        headers.append((name.lower(), value.strip(b" \t")))
    named = dict(headers)
    length, connection = named.get(b"content-length", b""), named.get(b"connection", b"keep-alive").lower()
    if len(named) != len(headers) or not _SPECIAL.isdisjoint(named) or not length.isdigit() or connection not in (b"keep-alive", b"close"):
        return None
    body = int(length[:9])
    return Request(target, headers, end + 4 + body, connection == b"close") if body <= _LONGEST_BODY and len(length) < 9 else None


def protocol(door: Door | None) -> type[PatientProtocol]:
    """The protocol with that door, and with as many connections as this process may open (raised as far as the system allows)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    most = None if soft == resource.RLIM_INFINITY else max(1, soft - _RESERVED)
    fields: dict[str, Any] = {"most_connections": most, "door": door}
    return type("ServedProtocol", (DoorstepProtocol,), fields)
