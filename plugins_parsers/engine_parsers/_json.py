"""JSON objects read as they grow: members come out in pieces, exactly as they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

_IN_STRING = re.compile(r'["\\]')
_STRUCTURE = re.compile(r'["{}\[\]]')
_SCALAR_END = re.compile(r"[,}\]\s]")
_SPACE = re.compile(r"[ \t\r\n]*")
_CLOSER = {"{": "}", "[": "]"}
#: Deeper values are not read: no parser of the client's side would read them either.
MAX_DEPTH = 500


class Malformed(Exception):
    """The text is no JSON object, or not the one that was expected; ``at`` is the first character that does not fit."""

    def __init__(self, at: int = -1) -> None:
        super().__init__(at)
        self.at = at


class Value:
    """Finds the end of one JSON value by its brackets and strings."""

    def __init__(self, first: str) -> None:
        """``first``: the value's first character, not read yet."""
        self.kind = {"{": "object", "[": "array", '"': "string"}.get(first, "scalar")
        self.done = False
        self._open: list[str] = []
        self._string = False
        self._escaped = False

    def read(self, text: str, at: int) -> int:
        """Where the value ends in this piece (``done`` where it is complete). Raises Malformed with the place for a wrong bracket."""
        if self.kind == "scalar":
            match = _SCALAR_END.search(text, at)
            self.done = match is not None
            return match.start() if match else len(text)
        while at < len(text) and not self.done:
            at = self._in_string(text, at) if self._string else self._structure(text, at)
        return at

    def _in_string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        match = _IN_STRING.search(text, at)
        if match is None:
            return len(text)
        if match[0] == "\\":
            self._escaped = True
        else:
            self._string = False
            self.done = not self._open
        return match.end()

    def _structure(self, text: str, at: int) -> int:
        match = _STRUCTURE.search(text, at)
        if match is None:
            return len(text)
        mark = match[0]
        if mark == '"':
            self._string = True
        elif mark in _CLOSER:
            if len(self._open) >= MAX_DEPTH:
                raise Malformed(match.start())
            self._open.append(_CLOSER[mark])
        elif not self._open or self._open.pop() != mark:
            raise Malformed(match.start())
        else:
            self.done = not self._open
        return match.end()


class Members:
    """Reads one object; ``member(key, piece, ended)`` receives its values piece by piece."""

    def __init__(self, member: Callable[[str, str, bool], None]) -> None:
        self.done = False
        self._member = member
        self._expect = "{"
        self._key: list[str] = []
        self._name = ""
        self._value: Value | None = None

    def read(self, text: str, at: int) -> int:
        """Where reading stopped: after the object where ``done``, else at the end. Raises Malformed."""
        try:
            while not self.done and at < len(text):
                at = self._read_value(text, at) if self._value is not None else self._read_mark(text, _skip(text, at))
        except Malformed as error:
            raise Malformed(at if error.at < 0 else error.at) from error
        return at

    def _read_mark(self, text: str, at: int) -> int:
        if at == len(text):
            return at
        mark = text[at]
        if self._expect in ("key", "key or }") and mark == '"':
            self._value = Value(mark)
        elif self._expect == "value":
            if mark not in '{["-tfn0123456789':
                raise Malformed
            self._value = Value(mark)
        elif self._expect in ("key or }", ", or }") and mark == "}":
            self.done = True
            return at + 1
        elif self._expect == ", or }" and mark == ",":
            self._expect = "key"
            return at + 1
        elif self._expect in ("{", ":") and mark == self._expect:
            self._expect = "key or }" if mark == "{" else "value"
            return at + 1
        else:
            raise Malformed
        return at

    def _read_value(self, text: str, at: int) -> int:
        value = self._value
        if value is None:
            return at
        try:
            end = value.read(text, at)
        except Malformed as error:
            if self._expect == "value":
                self._member(self._name, text[at : error.at], False)
            raise
        piece = text[at:end]
        if self._expect == "value":
            if piece or value.done:
                self._member(self._name, piece, value.done)
        else:
            self._key.append(piece)
        if value.done:
            if self._expect == "value":
                self._expect = ", or }"
            else:
                self._name, self._key = _key("".join(self._key)), []
                self._expect = ":"
            self._value = None
        return end


class CallObject:
    """A tool call written as one JSON object with a name and arguments.

    ``begin(name)`` comes once the name is known, ``arguments(piece)`` then gives the arguments' own text. ``raw`` is what was read before
    that, for an object that turns out to be no call.
    """

    def __init__(
        self, begin: Callable[[str], None], arguments: Callable[[str], None], *, known: frozenset[str] | None = None,
        names: tuple[str, ...] = ("name",), keys: tuple[str, ...] = ("arguments", "parameters"),
    ) -> None:  # fmt: skip
        """``known`` None: any name will do."""
        self.begun = False
        self._members = Members(self._member)
        self._begin = begin
        self._arguments = arguments
        self._known = known
        self._names = names
        self._keys = keys
        self._name: list[str] = []
        self._held: list[str] = []
        self._raw: list[str] = []
        self._state = "none"

    @property
    def done(self) -> bool:
        """Whether the object is complete."""
        return self._members.done

    @property
    def raw(self) -> str:
        """What was read before the call began."""
        return "".join(self._raw)

    def read(self, text: str, at: int) -> int:
        """Read on; where reading stopped. Raises :class:`Malformed` with the place; ``raw`` then goes up to this piece's beginning."""
        end = self._members.read(text, at)
        if self.done and not self.begun:
            raise Malformed(end)
        if self.done and self._state == "none":
            self._arguments("{}")
        elif not self.begun:
            self._raw.append(text[at:end])
        return end

    def finish(self) -> None:
        """The text ended inside: give out what was held back of a call that has begun."""
        if self.begun and self._state == "text":
            self._arguments("".join(self._held))

    def _member(self, key: str, piece: str, ended: bool) -> None:
        if key in self._names and not self.begun:
            self._name.append(piece)
            if ended:
                self._named(_string("".join(self._name)))
        elif key in self._keys and self._state != "done":
            self._argument(piece, ended)

    def _named(self, name: str) -> None:
        if not name or (self._known is not None and name not in self._known):
            raise Malformed
        self.begun = True
        self._begin(name)
        if self._state in ("object", "done"):
            self._arguments("".join(self._held))
            self._held = []

    def _argument(self, piece: str, ended: bool) -> None:
        """Objects and lists pass as they come; of anything else the whole is looked at: a text may hold the object."""
        if self._state == "none":
            self._state = "object" if piece[0] in "{[" else "text"
        if self._state == "object" and self.begun:
            self._arguments(piece)
        else:
            self._held.append(piece)
        if not ended:
            return
        if self._state == "text":
            self._held = [_unpacked("".join(self._held))]
            if self.begun:
                self._arguments(self._held.pop())
        self._state = "done"


def _unpacked(text: str) -> str:
    if text.startswith('"'):
        inner = _key(text)
        return inner if inner.lstrip().startswith("{") else text
    return "{}" if text == "null" else text


def _key(text: str) -> str:
    """The value of a JSON string; one with wrong escapes is taken as it is."""
    try:
        return _string(text)
    except Malformed:
        return text[1:-1]


def _string(text: str) -> str:
    """The value of a JSON string."""
    try:
        value = json.loads(text, strict=False)
    except ValueError as error:
        raise Malformed from error
    if not isinstance(value, str):
        raise Malformed
    return value


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
