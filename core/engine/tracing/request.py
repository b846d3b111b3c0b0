"""What happened to one request, collected while it happens and told when it is over."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

import msgspec

from engine.plugin.contracts.text import Delta, ParserState
from engine.plugin.request import SamplingParams

if TYPE_CHECKING:
    from engine.metrics.times import RequestTimes

_CURRENT: ContextVar[RequestTrace | None] = ContextVar("engine_request_trace", default=None)


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """A finished generation. ``times``: of each sequence; ``error``: why it failed, if it did."""

    model: str
    endpoint: str
    params: SamplingParams
    prompt_tokens: int
    completion_tokens: int
    times: Sequence[RequestTimes]
    error: str | None = None


class RequestTrace:
    """One request. Times are monotonic seconds; ``wall``: nanoseconds since 1970 at ``began``."""

    def __init__(self, request_id: str, headers: Mapping[str, str], *, path: str = "", began: float | None = None) -> None:
        """``headers``: may hold ``traceparent`` and ``tracestate``."""
        now = time.monotonic()
        self.request_id = request_id
        self.headers = headers
        self.path = path
        self.began = now if began is None else began
        self.wall = time.time_ns() - round((now - self.began) * 1e9)
        self.status = 0
        self.pieces: list[Piece] = []
        self.meters: list[Meter] = []
        self.generated: list[Generated] = []


    def meter(self, kind: str, state: ParserState) -> ParserState:
        """``state`` with its time measured."""
        self.meters.append(Meter(kind, state))
        return self.meters[-1]


class Piece:
    """A stretch of a request's time, spent in a plugin: of ``kind``, the one called ``plugin``, or the one that the server runs with."""

    __slots__ = ("_trace", "began", "ended", "kind", "name", "plugin")

    def __init__(self, trace: RequestTrace | None, name: str, kind: str) -> None:
        self._trace = trace
        self.name = name
        self.kind = kind
        self.plugin: str | None = None
        self.began = self.ended = 0.0

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if self._trace is not None:
            self.ended = time.monotonic()
            self._trace.pieces.append(self)


class Meter(ParserState):
    """A parser's state of one choice, whose many short calls are summed: ``busy`` seconds between the first and the last."""

    def __init__(self, kind: str, state: ParserState) -> None:
        self.kind = kind
        self._state = state
        self.began = self.ended = self.busy = 0.0
        self.calls = 0

    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        """See the contract."""
        with self._timed():
            return self._state.feed(text, token_ids)

    def finish(self) -> Delta:
        """See the contract."""
        with self._timed():
            return self._state.finish()

    def reasoning_ended(self) -> bool:
        """See the contract."""
        return self._state.reasoning_ended()

    def thinking(self) -> bool:
        """See the contract."""
        return self._state.thinking()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.ended = time.monotonic()
            self.began = self.began or began
            self.busy += self.ended - began
            self.calls += 1


def current() -> RequestTrace | None:
    """The trace of the request that this task works for; None where nobody wants one."""
    return _CURRENT.get()


@contextlib.contextmanager
def traced(trace: RequestTrace) -> Iterator[None]:
    """What runs inside, and the tasks made there, work for this request."""
    token = _CURRENT.set(trace)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def piece(name: str, kind: str) -> Piece:
    """A context manager around work of a plugin of that kind."""
    return Piece(_CURRENT.get(), name, kind)
