"""A parser as a machine of modes over a growing text: what every parser of this package is built on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

from engine.plugin import Delta, ParserState, ToolCallDelta
from engine_parsers._markers import Markers


class Machine(ParserState):
    """``mode`` is a method that reads the text from ``at`` on: True where it got somewhere, False where it waits for more text.

    A mode leaves only a bounded rest unread, so a stream costs linear time however it is split. Subclasses start with a mode of theirs.
    """

    mode: Callable[[], bool]

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.final = False
        self._content: list[str] = []
        self._reasoning: list[str] = []

    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        """See :meth:`engine.plugin.ParserState.feed`."""
        self.text = self.text[self.at :] + text
        self.at = 0
        return self._run()

    def finish(self) -> Delta:
        """See :meth:`engine.plugin.ParserState.finish`."""
        self.final = True
        return self._run()

    def _run(self) -> Delta:
        while self.mode():
            pass
        delta = Delta("".join(self._content), "".join(self._reasoning), self.taken_calls())
        self._content, self._reasoning = [], []
        return delta

    def taken_calls(self) -> tuple[ToolCallDelta, ...]:
        """The pieces of tool calls since the last time."""
        return ()

    def say(self, text: str) -> None:
        """Content."""
        self._content.append(text)

    def think(self, text: str) -> None:
        """Reasoning."""
        self._reasoning.append(text)

    def rest(self) -> str:
        """All unread text, now read."""
        text, self.at = self.text[self.at :], len(self.text)
        return text

    def until(self, markers: Markers) -> tuple[str, str | None]:
        """The text up to the next marker and the marker, both read; without a marker what cannot be the beginning of one."""
        found = markers.find(self.text, self.at)
        if found is not None and (self.final or not markers.open_ended(self.text, found[0])):
            place, marker = found
            text = self.text[self.at : place]
            self.at = place + len(marker)
            return text, marker
        held = 0 if self.final else markers.partial(self.text, self.at)
        end = len(self.text) - held
        text, self.at = self.text[self.at : end], end
        return text, None

    def next_is(self, marker: str) -> bool | None:
        """Whether the unread text begins with ``marker``; None where more text has to decide."""
        if self.text.startswith(marker, self.at):
            return True
        if self.final or not marker.startswith(self.text[self.at :]):
            return False
        return None

    def blank(self) -> str:
        """Whitespace from here on, read."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[start : self.at]


class CallMachine(Machine):
    """A machine that finds tool calls. Whitespace beside calls belongs to the markup and is dropped, all other text is content."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[ToolCallDelta] = []
        self._space: list[str] = []
        self._after_call = False
        self.count = 0

    def finish(self) -> Delta:
        """Whitespace at the end stays, unless a call came before it."""
        self.final = True
        while self.mode():
            pass
        if not self._after_call:
            self._content += self._space
        self._space = []
        return self._run()

    def taken_calls(self) -> tuple[ToolCallDelta, ...]:
        """The pieces of tool calls since the last time."""
        calls, self._calls = tuple(self._calls), []
        return calls

    def say(self, text: str) -> None:
        """Content; whitespace at its end waits for what follows."""
        kept = text.rstrip()
        if kept:
            self._content += [*self._space, kept]
            self._space = []
            self._after_call = False
        if len(kept) < len(text):
            self._space.append(text[len(kept) :])

    def begin_call(self, name: str, call_id: str | None = None) -> None:
        """A call's name is known."""
        self._space = []
        self._calls.append(ToolCallDelta(self.count, id=call_id or self.new_id(), name=name))
        self.count += 1
        self._after_call = True

    def add_arguments(self, text: str) -> None:
        """A piece of the latest call's arguments."""
        if text:
            self._calls.append(ToolCallDelta(self.count - 1, arguments=text))

    def new_id(self) -> str:
        """An id that no other call has."""
        return f"chatcmpl-tool-{uuid.uuid4().hex}"
