"""uvicorn's HTTP protocol with a bound on headers, answered in our own error shape."""

from __future__ import annotations

import http
import re
import sys
import uuid

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.server.errors import error_object
from engine.server.identity import MAX_HEADER_BYTES, MAX_HEADERS

#: Longest request target in bytes.
MAX_TARGET = 16 * 1024
#: Seconds that a refused client gets to read its answer.
LINGER_SECONDS = 1.0
_REQUEST_LINE = re.compile(rb"[!#-'*+.0-9A-Z^-z|~-]{1,64} [!-~]+ HTTP/1\.[01]\r\n")


class LimitedProtocol(HttpToolsProtocol):
    """Ends a connection whose request head is too large before it is kept, and one that is no HTTP."""

    _head = 0
    _begun = False
    _refused = False
    _data = b""

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; after a refusal they are dropped."""
        if not self._refused:
            self._data = data
            super().data_received(data)
            self._data = b""

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head = 0
        self._begun = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        if len(self.url) + len(url) > MAX_TARGET:
            self._refuse(414, f"The request target is longer than {MAX_TARGET} bytes.")
            return
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line."""
        self._head += len(name) + len(value)
        # uvicorn's list still holds one request's headers: refusing at twice the limit leaves the polite answer to the application.
        if self._head > 2 * MAX_HEADER_BYTES or len(self.headers) > 2 * MAX_HEADERS:
            self._refuse(431, f"The request's headers are larger than {MAX_HEADER_BYTES} bytes.")
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete; nothing is served on a connection that was refused."""
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._begun = False
        if not self._refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers to bytes that are no HTTP, or to a method that HTTP does not have."""
        wrong_method = isinstance(sys.exception(), httptools.HttpParserInvalidMethodError)
        if wrong_method and _REQUEST_LINE.match(self._data):
            self._refuse(405, "The method is none that HTTP has.")
        else:
            self._refuse(400, msg)

    def _refuse(self, status: int, message: str, *, retry_after: str | None = None) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self._answering():
            return
        body = msgspec.json.encode(error_object(message, status))
        phrase = http.HTTPStatus(status).phrase
        again = "x-should-retry: false" if retry_after is None else f"retry-after: {retry_after}"
        head = (
            f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {uuid.uuid4().hex}\r\n{again}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        # Closing with unread bytes would reset the connection, and the client would never see the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _answering(self) -> bool:
        """Whether an answer is under way already, beside which no other can be given."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        if not cycle.more_body:
            # What follows a whole request is refused with the connection's end; the request gets its answer first.
            cycle.keep_alive = False
            return True
        cycle.disconnected = True
        cycle.message_event.set()
        if cycle.response_started:
            self.transport.abort()
        return bool(cycle.response_started)
