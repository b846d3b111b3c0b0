"""Tool calls that are JSON objects, or lists of them, between markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine_parsers._json import CallObject, Malformed
from engine_parsers._machine import CallMachine
from engine_parsers._markers import Markers

_BETWEEN = re.compile(r"[\s,;]*")


class TaggedCalls(CallMachine):
    """``begin`` {object} ``end`` or ``begin`` [{object}, …] ``end``, any number of times, with content around it.

    ``end`` None: the calls end with the first text that is none; one of ``closings`` there is dropped. ``bare``: what an answer may begin
    with instead of a marker (``{`` or ``[``); such objects must call one of ``known``, and so must those behind ``loose``, markers that
    begin other things, too, and behind ``passed``, which stay content. Brackets too many behind an object are dropped. What looks like a
    call and is none becomes content as it stands.
    """

    def __init__(
        self, begin: Sequence[str], end: str | None, *, known: frozenset[str] = frozenset(), bare: str = "",
        names: tuple[str, ...] = ("name",), keys: tuple[str, ...] = ("arguments", "parameters"), closings: tuple[str, ...] = (),
        loose: tuple[str, ...] = (), passed: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        self._marks = (*begin, *loose, *passed)
        self._begin = Markers(self._marks) if begin else None
        self._loose = loose
        self._passed = passed
        self._end = end
        self._closings = closings
        self._after = Markers((end, *begin)) if end else None
        self._known = known
        self._bare = bare
        self._names = names
        self._keys = keys
        self._raw: list[str] = []
        self._object: CallObject | None = None
        self._only: frozenset[str] | None = None
        self._found = False
        self._listed = False
        self.mode = self._first if bare else self._outside

    def _first(self) -> bool:
        """The answer's first character decides whether it is a bare call."""
        self.say(self.blank())
        if self.at == len(self.text):
            return False
        marked = [self.next_is(marker) for marker in self._marks]
        if True not in marked and None in marked:
            return False
        if True not in marked and self.text[self.at] in self._bare:
            self._enter("", known=self._known)
        else:
            self.mode = self._outside
        return True

    def _outside(self) -> bool:
        if self._begin is None:
            self.say(self.rest())
            return False
        text, marker = self.until(self._begin)
        self.say(text)
        if marker is None:
            return False
        if marker in self._passed:
            self.say(marker)
            self._enter("", known=self._known)
        else:
            self._enter(marker, known=self._known if marker in self._loose else None)
        return True

    def _enter(self, marker: str, known: frozenset[str] | None = None) -> None:
        self._raw = [marker]
        self._only = known
        self._found = False
        self._listed = False
        self.mode = self._inside

    def _inside(self) -> bool:
        """Between the markers, before the first object or between two."""
        self._skip()
        if self.at == len(self.text):
            return self._wait()
        if self.text[self.at] == "{" or (self.text[self.at] == "[" and not self._listed):
            if self.text[self.at] == "[":
                self._listed = True
                self._raw.append("[")
                self.at += 1
                return True
            self._object = CallObject(self.begin_call, self.add_arguments, known=self._only, names=self._names, keys=self._keys)
            self.mode = self._in_object
            return True
        if self.text[self.at] in "]}" and self._found:
            self.at += 1
            return True
        ended = self.next_is(self._end) if self._end else self._closed()
        if ended is None:
            return False
        self._leave(ended)
        return True

    def _closed(self) -> bool | None:
        """Whether the calls without an end marker are over; None: more text has to tell."""
        for closing in self._closings if self._found else ():
            there = self.next_is(closing)
            if there is None:
                return None
            if there:
                self.at += len(closing)
                break
        return self._found

    def _skip(self) -> None:
        match = _BETWEEN.match(self.text, self.at)
        if match:
            self._raw.append(match[0])
            self.at = match.end()

    def _leave(self, ended: bool) -> None:
        """Back to content: after the end marker, or with text that belongs to no call."""
        if not self._found:
            self.say("".join(self._raw))
        elif ended:
            self.at += len(self._end or "")
        self._raw = []
        self.mode = self._astray if self._found and not ended and self._after else self._outside

    def _astray(self) -> bool:
        """Text between a call and its end marker is content."""
        if self._after is None:
            return False
        text, marker = self.until(self._after)
        self.say(text)
        if marker == self._end:
            self.mode = self._outside
        elif marker is not None:
            self._enter(marker)
        return marker is not None

    def _wait(self) -> bool:
        """More text has to come; at the end of all text, what was no call is content."""
        if self.final and self._raw:
            if not self._found:
                self.say("".join(self._raw))
            self._raw = []
        return False

    def _in_object(self) -> bool:
        found = self._object
        if found is None:
            return False
        start = self.at
        try:
            self.at = found.read(self.text, self.at)
        except Malformed as error:
            self._break_off(found, start, error.at)
            return True
        if found.begun:
            self._raw = []
            self._found = True
        if found.done:
            self._object, self.mode = None, self._inside
            return True
        if self.final:
            found.finish()
            self._raw.append(found.raw)
            self._object, self.mode = None, self._ended
        return self.final

    def _break_off(self, found: CallObject, start: int, at: int) -> None:
        """The object is none, or no call: what was not given out as a call is content."""
        self._object = None
        if not found.begun:
            self.say("".join(self._raw) + found.raw + self.text[start:at])
        else:
            found.finish()
            self._found = True
        self._raw = []
        self.at = at
        self.mode = self._inside if found.begun else self._outside

    def _ended(self) -> bool:
        """The text ended inside an object."""
        if not self._found:
            self.say("".join(self._raw))
        self._raw = []
        return False


def known_names(tools: Sequence[dict[str, Any]]) -> frozenset[str]:
    """The names of a request's tools."""
    return frozenset(tool["function"]["name"] for tool in tools)
