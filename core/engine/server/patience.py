"""How long a connection may take: to send a request's head and body, and to read its answer."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

from engine.server.door import Door
from engine.server.errors import RETRY_AFTER
from engine.server.limits import LimitedProtocol

#: Seconds between two looks at a body that is still expected.
_LOOK = 1.0


class PatientProtocol(LimitedProtocol):
    """Gives up on clients that send or read too slowly (status 408, or an end without words), and on connections beyond the limit.

    ``head_seconds``: from a request's first byte (or the connection's begin) to the end of its head. ``body_seconds`` plus one
    second for every ``body_rate`` bytes: the same for the body. ``read_seconds``: for an answer that fills the send buffer
    to be read down to where more is written. ``most_connections``: 503 above it.
    """

    head_seconds = 10.0
    body_seconds = 30.0
    body_rate = 16 * 1024
    read_seconds = 30.0
    most_connections: int | None = None
    door: Door | None = None

    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _body_due = 0.0
    _expecting = False
    _declined = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came."""
        super().connection_made(transport)
        if self.most_connections is not None and len(self.connections) > self.most_connections:
            self._refuse(503, "The server has as many connections as it can have.", retry_after=RETRY_AFTER)
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was left."""
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client. Those between requests (empty lines) begin a request as far as time goes."""
        if self._deadline is None and not self._expecting:
            self._expect_head()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is complete; its body is due."""
        self._stop_waiting()
        self._expecting = True
        self._body_due = self.loop.time() + self.body_seconds
        if not self._decline():
            super().on_headers_complete()
        if self._expecting and not self._refused:
            self._deadline = self.loop.call_later(_LOOK, self._check_body)

    def on_body(self, body: bytes) -> None:
        """A piece of the body: it buys time for the next."""
        self._body_due += len(body) / self.body_rate
        if not self._declined:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._expecting = False
        self._stop_waiting()
        if not self._declined:
            super().on_message_complete()
            return
        self._declined = self._begun = False
        if self.parser.should_keep_alive():
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """The send buffer is full."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """The client asks nothing more. An answer that it does not read would keep the connection for ever."""
        super().timeout_keep_alive_handler()
        self._stalled = self._stalled or self.loop.call_later(self.read_seconds, self.transport.abort)

    def _decline(self) -> bool:
        """Refuse the request at the door; its body is still read, and dropped, so that the connection can go on."""
        earlier = self.cycle is not None and not self.cycle.response_complete
        if self.door is None or earlier or self.expect_100_continue or self._refused or self.parser.get_method() != b"POST":
            return False
        answer = self.door.refuse(self.url, self.headers)
        if answer is None:
            return False
        self._declined = True
        self.transport.write(answer)
        return True

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self.head_seconds, self._give_up_head)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up_head(self) -> None:
        self._deadline = None
        self._give_up(f"The request's head did not come within {self.head_seconds:g} seconds.")

    def _check_body(self) -> None:
        # Where the server itself does not read, the client is not late.
        late = self.loop.time() > self._body_due and not _held_back(self.flow)
        self._deadline = None
        if late:
            self._give_up("The request's body came too slowly.")
        else:
            self._deadline = self.loop.call_later(_LOOK, self._check_body)

    def _give_up(self, message: str) -> None:
        """408 where an answer is still possible; otherwise the connection ends."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and not self._begun:
            self.transport.close()
        elif self._declined:
            self.transport.abort()
        elif idle or not self.cycle.response_started:
            self._refuse(408, message, retry_after=RETRY_AFTER)
        else:
            self.transport.abort()


def _held_back(flow: FlowControl) -> bool:
    return bool(flow.read_paused)
