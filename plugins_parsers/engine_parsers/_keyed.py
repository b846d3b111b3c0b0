"""Tool calls of GLM: a name, then keys and values in elements of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from engine_parsers._machine import CallMachine
from engine_parsers._markers import Markers
from engine_parsers._parameters import Arguments, schema_of

BEGIN, END = "<tool_call>", "</tool_call>"
KEY, KEY_END, VALUE, VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"
MAX_NAME = 512
_NAME = re.compile(r"\s*([\w.\-]+)\s*")


class KeyedCalls(CallMachine):
    """``<tool_call>NAME <arg_key>KEY</arg_key> <arg_value>value</arg_value> … </tool_call>``; what is none of it becomes content."""

    def __init__(self, tools: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._tools = tools
        self._begin = Markers((BEGIN,))
        self._inner = Markers((KEY, VALUE, END))
        self._key_end = Markers((KEY_END, VALUE, END))
        self._value_end = Markers((VALUE_END,))
        self._held: list[str] = []
        self._length = 0
        self._key = ""
        self._arguments = Arguments(self.add_arguments, {})
        self.mode = self._outside

    def _outside(self) -> bool:
        text, marker = self.until(self._begin)
        self.say(text)
        if marker is not None:
            self._held, self._length = [], 0
            self.mode = self._in_name
        return marker is not None

    def _in_name(self) -> bool:
        text, marker = self.until(self._inner)
        self._held.append(text)
        self._length += len(text)
        if marker is None and not self.final and self._length <= MAX_NAME:
            return False
        written = "".join(self._held)
        match = _NAME.fullmatch(written) if marker in (KEY, END) else None
        if match is None:
            self.say(BEGIN + written + (marker or ""))
            self.mode = self._outside
            return marker is not None or not self.final
        self.begin_call(match[1])
        self._arguments = Arguments(self.add_arguments, schema_of(self._tools, match[1]))
        self.at -= len(marker or "")
        self.mode = self._in_call
        return True

    def _in_call(self) -> bool:
        text, marker = self.until(self._inner)
        if text.strip():
            self.say(text)
        if marker == KEY:
            self._held = []
            self.mode = self._in_key
        elif marker == VALUE:
            self._arguments.open(self._key)
            self.mode = self._in_value
        elif marker == END:
            self._arguments.end()
            self.mode = self._outside
        return marker is not None

    def _in_key(self) -> bool:
        text, marker = self.until(self._key_end)
        self._held.append(text)
        if marker is None:
            return False
        self._key = "".join(self._held).strip()
        if marker != KEY_END:
            self.at -= len(marker)
        self.mode = self._in_call
        return True

    def _in_value(self) -> bool:
        text, marker = self.until(self._value_end)
        self._arguments.text(text)
        if marker is None:
            if self.final:
                self._arguments.cut()
            return False
        self._arguments.close()
        self.mode = self._in_call
        return True
