"""Tool calls written as a header that names the function, then its arguments as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine_parsers._json import Malformed, Value
from engine_parsers._machine import CallMachine
from engine_parsers._markers import Markers

#: A longer text before the arguments is no header.
MAX_HEADER = 1024


class NamedCalls(CallMachine):
    """``begin`` header {arguments} ``end``, any number of times, with content around it.

    ``header``: a pattern with the group ``name`` and perhaps ``id``; what lies between begin marker and ``{`` must match it whole.
    ``tail``: what may stand between arguments and end marker. ``end`` empty: a call ends with its arguments. ``dropped``: markers that
    enclose all calls. What looks like a call and is none becomes content as it stands.
    """

    def __init__(
        self, begin: Sequence[str], header: str, end: Sequence[str], *, dropped: Sequence[str] = (), tail: str = r"\s*"
    ) -> None:
        super().__init__()
        self._begin = tuple(begin)
        self._outer = Markers((*begin, *dropped))
        self._header = re.compile(header)
        self._stop = Markers((*begin, *end, *dropped, "{"))
        self._after = Markers((*begin, *end, *dropped)) if end else None
        self._tail = re.compile(tail)
        self._raw: list[str] = []
        self._length = 0
        self._rest: list[str] = []
        self._value = Value("{")
        self.mode = self._outside

    def _outside(self) -> bool:
        text, marker = self.until(self._outer)
        self.say(text)
        if marker in self._begin:
            self._raw = [marker or ""]
            self._length = 0
            self.mode = self._in_header
        return marker is not None

    def _in_header(self) -> bool:
        text, marker = self.until(self._stop)
        self._raw.append(text)
        self._length += len(text)
        if marker is None:
            if self.final or self._length > MAX_HEADER:
                self._give_up()
                return not self.final
            return False
        match = self._header.fullmatch("".join(self._raw[1:])) if marker == "{" else None
        self.at -= len(marker)
        if match is None:
            if marker == "{":
                self._raw.append(marker)
                self.at += 1
            self._give_up()
            return True
        groups = match.groupdict()
        self.begin_call(groups["name"], groups.get("id"))
        self._value = Value("{")
        self.mode = self._in_arguments
        return True

    def _give_up(self) -> None:
        """The header is none."""
        self.say("".join(self._raw))
        self._raw = []
        self.mode = self._outside

    def _in_arguments(self) -> bool:
        start = self.at
        try:
            self.at = self._value.read(self.text, start)
        except Malformed as error:
            self.add_arguments(self.text[start : error.at])
            self.at = error.at
            self.mode = self._broken if self._after else self._outside
            return True
        self.add_arguments(self.text[start : self.at])
        if not self._value.done:
            return False
        self._rest = []
        self.mode = self._in_tail if self._after else self._outside
        return True

    def _in_tail(self) -> bool:
        """Between the arguments and the end marker: what is not allowed there is content."""
        if self._after is None:
            return False
        text, marker = self.until(self._after)
        self._rest.append(text)
        if marker is None and not self.final:
            return False
        rest = "".join(self._rest)
        self._rest = []
        if not self._tail.fullmatch(rest):
            self.say(rest)
        self._next(marker)
        return marker is not None

    def _broken(self) -> bool:
        """Arguments that are no JSON go on to the end marker as they are."""
        if self._after is None:
            return False
        text, marker = self.until(self._after)
        self.add_arguments(text)
        if marker is not None:
            self._next(marker)
        return marker is not None

    def _next(self, marker: str | None) -> None:
        self.mode = self._outside
        if marker in self._begin:
            self.at -= len(marker or "")
