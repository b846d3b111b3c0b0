"""How much may wait: a request beyond it is refused at once, with the time after which asking again may help."""

from __future__ import annotations

import math
import time
from collections import deque

from engine.config import ServerConfig
from engine.errors import RequestError

#: Waits of so many requests tell how fast the queue moves.
_REMEMBERED = 64
_LONGEST_RETRY = 60


class Ticket:
    """The place of one sequence among those that have no output yet."""

    def __init__(self, admission: Admission, tokens: int) -> None:
        self._admission = admission
        self._tokens = tokens
        self._waits = True
        admission.requests += 1
        admission.tokens += tokens

    def leave(self) -> None:
        """It has its first output, or has gone. May be called again."""
        if self._waits:
            self._waits = False
            self._admission.requests -= 1
            self._admission.tokens -= self._tokens
            self._admission.left.append(time.monotonic())


class Admission:
    """Counts what waits: ``requests`` sequences with ``tokens`` prompt tokens that have been given nothing yet."""

    def __init__(self, server: ServerConfig) -> None:
        self._most_requests = server.max_queued_requests
        self._most_tokens = server.max_queued_tokens
        self.requests = 0
        self.tokens = 0
        self.left: deque[float] = deque(maxlen=_REMEMBERED)

    def full(self) -> bool:
        """Whether a request that comes now is refused."""
        requests, tokens = self._most_requests, self._most_tokens
        return (requests is not None and self.requests >= requests) or (tokens is not None and self.tokens >= tokens)

    def check(self) -> None:
        """Raises RequestError (429) where the queue is full; called before a prompt is rendered, and before it is queued."""
        if self.full():
            raise self.refusal()

    def refusal(self) -> RequestError:
        """The error for a request that is refused now."""
        count, most, what, flag = self.requests, self._most_requests, "requests", "--max-queued-requests"
        if most is None or count < most:
            count, most, what, flag = self.tokens, self._most_tokens, "prompt tokens", "--max-queued-tokens"
        cause = f"The server is busy: {count} {what} wait already ({flag} {most})."
        return RequestError(cause, code="queue_full", http_status=429, retry_after=self.retry_after())

    def enter(self, prompt_tokens: int) -> Ticket:
        """Take a place."""
        return Ticket(self, prompt_tokens)

    def retry_after(self) -> int:
        """Seconds until about half of what waits has gone, by the speed of the last; from 1 to 60."""
        if len(self.left) < 2:
            return 1
        seconds = max(time.monotonic() - self.left[0], 1e-3) / len(self.left)
        return min(_LONGEST_RETRY, max(1, math.ceil(seconds * self.requests / 2)))
