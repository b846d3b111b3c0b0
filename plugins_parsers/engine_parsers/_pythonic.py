"""Tool calls written as Python: [f(a=1), g(b="x")]."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine_parsers._json import Malformed
from engine_parsers._machine import CallMachine
from engine_parsers._markers import Markers
from engine_parsers._parameters import Arguments, schema_of
from engine_parsers._python import NoLiteral, read_literal
from engine_parsers._tagged import known_names

MAX_NAME = 256
_HEAD = re.compile(r"\s*([A-Za-z_][\w.\-]*)\s*\(")
_HEAD_BEGUN = re.compile(r"\s*(?:[A-Za-z_][\w.\-]*\s*)?")
_BETWEEN = re.compile(r"[\s,;]*")
_KEY = re.compile(r"\s*([A-Za-z_]\w*)\s*=(?!=)")
_STRUCTURE = re.compile(r"[\"'()\[\]{},]")
_IN_STRING = {"'": re.compile(r"['\\]"), '"': re.compile(r'["\\]')}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}
MAX_DEPTH = 500


class Argument:
    """Finds where one argument of a call ends."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._quote = ""
        self._escaped = False
        self.parts: list[str] = []

    def read(self, text: str, at: int) -> tuple[int, str]:
        """(where reading stopped, the ``,`` or ``)`` found there, or nothing). Raises Malformed for brackets that do not match."""
        start = at
        while at < len(text):
            if self._quote:
                at = self._string(text, at)
                continue
            match = _STRUCTURE.search(text, at)
            if match is None:
                at = len(text)
                break
            mark = match[0]
            if not self._open and mark in ",)":
                self.parts.append(text[start : match.start()])
                return match.start(), mark
            at = match.end()
            self._structure(mark, match.start())
        self.parts.append(text[start:at])
        return at, ""

    def _structure(self, mark: str, at: int) -> None:
        if mark in "\"'":
            self._quote = mark
        elif mark in _CLOSERS:
            if len(self._open) >= MAX_DEPTH:
                raise Malformed(at)
            self._open.append(_CLOSERS[mark])
        elif mark != "," and (not self._open or self._open.pop() != mark):
            raise Malformed(at)

    def _string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        match = _IN_STRING[self._quote].search(text, at)
        if match is None:
            return len(text)
        if match[0] == "\\":
            self._escaped = True
        else:
            self._quote = ""
        return match.end()


class PythonicCalls(CallMachine):
    """``begin`` [call, …] ``end``; without markers the answer itself begins with ``[`` and calls a tool of the request."""

    def __init__(self, tools: Sequence[dict[str, Any]], *, begin: str = "", end: str = "", opener: str = "[", closer: str = "]") -> None:
        """``opener`` and ``closer`` empty: the calls stand between the markers without a list."""
        super().__init__()
        self._tools = tools
        self._known = known_names(tools)
        self._opener, self._closer = opener, closer
        self._begin = Markers((begin,)) if begin else None
        self._end = end
        self._raw: list[str] = []
        self._found = False
        self._listed = not opener
        self._bare = True
        self._argument = Argument()
        self._arguments: Arguments | None = None
        self._position = 0
        self.mode = self._first

    def _first(self) -> bool:
        """The answer's first character: a list of calls may come without a marker."""
        self.say(self.blank())
        if self.at == len(self.text):
            return False
        if self._opener and self.text.startswith(self._opener, self.at):
            self._enter("")
        else:
            self.mode = self._outside
        return True

    def _outside(self) -> bool:
        if self._begin is None:
            self.say(self.rest())
            return False
        text, marker = self.until(self._begin)
        self.say(text)
        if marker is not None:
            self._enter(marker)
        return marker is not None

    def _enter(self, marker: str) -> None:
        self._raw = [marker]
        self._found = False
        self._bare = not marker
        self._listed = not self._opener
        self.mode = self._between

    def _between(self) -> bool:
        """Before a call, between two, or at the end."""
        match = _BETWEEN.match(self.text, self.at)
        if match:
            self._raw.append(match[0])
            self.at = match.end()
        if self.at == len(self.text):
            return self._wait()
        if not self._listed and self.text.startswith(self._opener, self.at):
            self._raw.append(self._opener)
            self.at += 1
            self._listed = True
            return True
        if self._listed and self._closer and self._found and self.text.startswith(self._closer, self.at):
            self.at += 1
            return self._close()
        ended = self.next_is(self._end) if self._end else False
        if ended is None:
            return False
        if ended and self._found:
            self.at += len(self._end)
            return self._close()
        if self._listed and not ended:
            return self._head()
        return self._give_up()

    def _close(self) -> bool:
        self._raw = []
        self.mode = self._closed if self._end else self._outside
        return True

    def _closed(self) -> bool:
        """The end marker may follow the list."""
        self.blank()
        ended = self.next_is(self._end)
        if ended is None:
            return False
        if ended:
            self.at += len(self._end)
        self.mode = self._outside
        return True

    def _head(self) -> bool:
        """The name of a call and its parenthesis."""
        match = _HEAD.match(self.text, self.at)
        if match is None:
            begun = _HEAD_BEGUN.fullmatch(self.text, self.at)
            if begun and not self.final and len(self.text) - self.at <= MAX_NAME:
                return False
            return self._give_up()
        if self._bare and match[1] not in self._known:
            return self._give_up()
        self._raw = []
        self._found = True
        self.at = match.end()
        self.begin_call(match[1])
        self._arguments = Arguments(self.add_arguments, schema_of(self._tools, match[1]))
        self._argument = Argument()
        self._position = 0
        self.mode = self._in_call
        return True

    def _in_call(self) -> bool:
        try:
            self.at, mark = self._argument.read(self.text, self.at)
        except Malformed as error:
            self._cut(self.text[self.at : error.at])
            self.at = error.at
            self.mode = self._outside
            return True
        if not mark:
            if self.final:
                self._cut("")
                self._argument = Argument()
            return False
        self.at += 1
        self._add("".join(self._argument.parts))
        self._argument = Argument()
        if mark == ")":
            if self._arguments is not None:
                self._arguments.end()
            self.mode = self._between
        return True

    def _add(self, text: str) -> None:
        """One argument; what is no literal is passed on as the text that it is."""
        if not text.strip() or self._arguments is None:
            return
        match = _KEY.match(text)
        key = match[1] if match else self._arguments.name_of(self._position)
        self._position += 1
        written = text[match.end() :] if match else text
        try:
            value = read_literal(written)
        except NoLiteral:
            value = written.strip()
        self._arguments.add(key, value)

    def _cut(self, more: str) -> None:
        """The call was cut off inside an argument."""
        text = "".join(self._argument.parts) + more
        match = _KEY.match(text)
        if match and self._arguments is not None:
            self._arguments.open(match[1], as_string=False)
            self._arguments.text(text[match.end() :].lstrip())
            self._arguments.cut()
        elif text.strip():
            self.add_arguments(text)

    def _give_up(self) -> bool:
        """What comes is no call; what was read of it is content, unless calls came before."""
        if not self._found:
            self.say("".join(self._raw))
        self._raw = []
        self.mode = self._outside
        return True

    def _wait(self) -> bool:
        if self.final:
            if not self._found:
                self.say("".join(self._raw))
            self._raw = []
        return False
