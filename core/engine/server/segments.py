"""An answer as a row of segments: reasoning, text and tool calls in the order of the output, each begun, grown and ended."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from engine.assemble.choice import ChoiceDelta
from engine.plugin.contracts.text import ToolCallDelta

REASONING, TEXT, CALL = "reasoning", "text", "call"


class Segment(msgspec.Struct):
    """One segment so far: ``pieces`` of its text, or of the arguments of the call ``call_id`` of ``name``."""

    kind: str
    number: int
    call_id: str = ""
    name: str = ""
    pieces: list[str] = []

    @property
    def value(self) -> str:
        """The whole of it."""
        return "".join(self.pieces)


class Change(msgspec.Struct, frozen=True):
    """``begun``, ``grown`` (by ``piece``) or ``ended``."""

    what: str
    segment: Segment
    piece: str = ""


class Segments:
    """Turns a choice's deltas into changes of segments. Each segment ends before the next begins.

    White space between tool calls, or between the reasoning and a call, makes no segment of its own.
    """

    def __init__(self, *, reasoning: bool) -> None:
        """``reasoning`` False leaves the reasoning out."""
        self._reasons = reasoning
        self._open: Segment | None = None
        self._call: int | None = None
        self._space = ""
        self.all: list[Segment] = []

    def feed(self, delta: ChoiceDelta) -> Iterator[Change]:
        """What a delta changes."""
        if delta.reasoning and self._reasons:
            yield from self._grow(REASONING, delta.reasoning)
        if delta.text:
            yield from self._text(delta.text)
        for piece in delta.tool_calls:
            yield from self._called(piece)

    def finish(self) -> Iterator[Change]:
        """The output ended. An answer without any segment has one empty text."""
        if not self.all:
            yield self._begin(TEXT)
            if self._space:
                yield self._add(self._space)
        yield from self._end()

    def _text(self, text: str) -> Iterator[Change]:
        if self._open is None or self._open.kind != TEXT:
            text, self._space = self._space + text, ""
            if text.isspace():
                self._space = text
                return
        yield from self._grow(TEXT, text)

    def _called(self, piece: ToolCallDelta) -> Iterator[Change]:
        if piece.index != self._call:
            yield from self._end()
            self._call, self._space = piece.index, ""
            yield self._begin(CALL, call_id=piece.id or "", name=piece.name or "")
        if piece.arguments:
            yield self._add(piece.arguments)

    def _grow(self, kind: str, piece: str) -> Iterator[Change]:
        if self._open is None or self._open.kind != kind:
            yield from self._end()
            yield self._begin(kind)
        yield self._add(piece)

    def _begin(self, kind: str, *, call_id: str = "", name: str = "") -> Change:
        self._open = Segment(kind, len(self.all), call_id=call_id, name=name)
        self.all.append(self._open)
        return Change("begun", self._open)

    def _add(self, piece: str) -> Change:
        segment = self.all[-1]
        segment.pieces.append(piece)
        return Change("grown", segment, piece)

    def _end(self) -> Iterator[Change]:
        if self._open is not None:
            yield Change("ended", self._open)
        self._open = None
