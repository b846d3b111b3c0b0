"""Tool calls written as elements: one for the function, one inside it for each argument."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from engine_parsers._machine import CallMachine
from engine_parsers._markers import Markers
from engine_parsers._parameters import Arguments, schema_of

MAX_NAME = 1024
_ATTRIBUTE = re.compile(r'\s*name="([^"]*)"(?:\s+string="(true|false)")?\s*')
_PLAIN = re.compile(r"\s*([^<>\s]+)\s*")


class ElementCalls(CallMachine):
    """``begin`` ``function``NAME> ``parameter``KEY>value``parameter_end`` … ``function_end`` ``end``, with content around it.

    ``function`` and ``parameter`` open an element, whose name goes on to ``>``. ``trim``: one line break at either end of a value is
    markup. ``attributes``: names are written name="…". A function may come without the outer markers. What looks like a call and is none
    becomes content.
    """

    def __init__(
        self, tools: Sequence[dict[str, Any]], *, outer: tuple[str, str], function: tuple[str, str], parameter: tuple[str, str],
        trim: bool, attributes: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self._tools = tools
        self._outer_begin, self._outer_end = outer
        self._function, self._function_end = function
        self._parameter, self._parameter_end = parameter
        self._trim = trim
        self._name = _ATTRIBUTE if attributes else _PLAIN
        self._begin = Markers((self._outer_begin, self._function))
        self._between = Markers((self._outer_begin, self._function, self._outer_end))
        self._inner = Markers((self._parameter, self._function_end, self._outer_end))
        self._close = Markers(((("\n" + self._parameter_end),) if trim else ()) + (self._parameter_end,))
        self._bracket = Markers((">",))
        self._raw: list[str] = []
        self._header: list[str] = []
        self._length = 0
        self._arguments: Arguments | None = None
        self._found = False
        self._as_string: bool | None = None
        self._named: Callable[[str], bool] = self._named_function
        self.mode = self._outside

    def _outside(self) -> bool:
        text, marker = self.until(self._begin)
        self.say(text)
        if marker is None:
            return False
        self._found = False
        self._raw = [marker]
        if marker == self._outer_begin:
            self.mode = self._inside
        else:
            self._read_name(self._named_function)
        return True

    def _inside(self) -> bool:
        """Between the outer marker and a function, or between two functions."""
        text, marker = self.until(self._between)
        if text.strip():
            self.say("".join(self._raw) + text)
            self._raw = []
        elif not self._found:
            self._raw.append(text)
        if marker is None:
            if self.final:
                self._drop_raw()
            return False
        if marker != self._outer_end:
            self._raw.append(marker)
            if marker == self._function:
                self._read_name(self._named_function)
            return True
        if self._found:
            self._raw = []
        else:
            self._raw.append(marker)
            self._drop_raw()
        self.mode = self._outside
        return True

    def _drop_raw(self) -> None:
        """What was read without becoming a call is content."""
        self.say("".join(self._raw))
        self._raw = []

    def _read_name(self, named: Callable[[str], bool]) -> None:
        self._header = []
        self._length = 0
        self._named = named
        self.mode = self._in_name

    def _in_name(self) -> bool:
        text, marker = self.until(self._bracket)
        self._header.append(text)
        self._length += len(text)
        if marker is None and not self.final and self._length <= MAX_NAME:
            return False
        header = "".join(self._header)
        match = self._name.fullmatch(header)
        if marker is not None and match is not None and match[1]:
            self._as_string = None if not match.re.groups > 1 or match[2] is None else match[2] == "true"
            return self._named(match[1])
        self._raw.append(header + (marker or ""))
        self._drop_raw()
        self.mode = self._in_call if self._arguments is not None else self._outside
        return not self.final or marker is not None

    def _named_function(self, name: str) -> bool:
        self._raw = []
        self._found = True
        self.begin_call(name)
        self._arguments = Arguments(self.add_arguments, schema_of(self._tools, name))
        self.mode = self._in_call
        return True

    def _in_call(self) -> bool:
        """Between two arguments."""
        text, marker = self.until(self._inner)
        if text.strip():
            self.say(text)
        if marker is None:
            return False
        if marker == self._parameter:
            self._raw = [marker]
            self._read_name(self._named_parameter)
            return True
        if self._arguments is not None:
            self._arguments.end()
        self._arguments = None
        self.mode = self._inside if marker == self._function_end else self._outside
        return True

    def _named_parameter(self, key: str) -> bool:
        self._raw = []
        if self._arguments is not None:
            self._arguments.open(key, as_string=self._as_string)
        self.mode = self._lead if self._trim else self._in_value
        return True

    def _lead(self) -> bool:
        """The line break before a value."""
        if self.at == len(self.text):
            return False
        if self.text[self.at] == "\n" and not self.text.startswith("\n" + self._parameter_end, self.at):
            broken = self.next_is("\n" + self._parameter_end)
            if broken is None:
                return False
            self.at += 1
        self.mode = self._in_value
        return True

    def _in_value(self) -> bool:
        text, marker = self.until(self._close)
        if self._arguments is None:
            return False
        self._arguments.text(text)
        if marker is None:
            if self.final:
                self._arguments.cut()
            return False
        self._arguments.close()
        self.mode = self._in_call
        return True
