"""The channels of gpt-oss: analysis is reasoning, final is the answer, a recipient makes a tool call."""

from __future__ import annotations

import re

from engine_parsers._machine import Machine
from engine_parsers._markers import Markers

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
MARKERS = (START, CHANNEL, CONSTRAIN, MESSAGE, *ENDS)
#: How the reasoning parser hands a call on to the tool parser.
CALL = "<|channel|>commentary to=functions."
MAX_HEADER = 1024
_CHANNEL = re.compile(r"<\|channel\|>\s*([A-Za-z]+)")
_FUNCTION = re.compile(r"to=functions\.([\w.\-]+)")
_RECIPIENT = " to="


class Channels(Machine):
    """Splits messages by their channel. The prompt ends with the assistant's start, so the output begins inside a header."""

    def __init__(self) -> None:
        super().__init__()
        self._header_end = Markers((MESSAGE, *ENDS))
        self._body_end = Markers((START, CHANNEL, *ENDS))
        self._header: list[str] = []
        self._length = 0
        self._channel = ""
        self._calls = False
        self.mode = self._first

    def reasoning_ended(self) -> bool:
        """See the contract."""
        return self._calls or self._channel not in ("", "analysis")

    def thinking(self) -> bool:
        """See the contract."""
        return self._channel == "analysis" and not self._calls

    def _first(self) -> bool:
        """An output without any header is an answer."""
        beginnings = [self.next_is(mark) for mark in (START, CHANNEL, CONSTRAIN, MESSAGE, _RECIPIENT)]
        if self.at == len(self.text) or (None in beginnings and True not in beginnings):
            return False
        if True in beginnings:
            self.mode = self._in_header
        else:
            self._channel = "final"
            self.mode = self._in_body
        return True

    def _in_header(self) -> bool:
        text, marker = self.until(self._header_end)
        self._header.append(text)
        self._length += len(text)
        if marker is None and not self.final and self._length <= MAX_HEADER:
            return False
        header = "".join(self._header)
        self._header, self._length = [], 0
        if marker == MESSAGE:
            self._open(header)
            self.mode = self._in_body
        elif not header.lstrip().startswith((START, CHANNEL)):
            self.say(header)
        elif marker is None and not self.final:
            self.say(header)
            self._channel = "final"
            self.mode = self._in_body
        return marker is not None or not self.final

    def _open(self, header: str) -> None:
        function = _FUNCTION.search(header)
        channel = _CHANNEL.search(header)
        self._calls = function is not None
        self._channel = channel[1] if channel else "final"
        if function:
            self.say(f"{CALL}{function[1]}{MESSAGE}")

    def _in_body(self) -> bool:
        text, marker = self.until(self._body_end)
        if self.thinking():
            self.think(text)
        else:
            self.say(text)
        if marker is None:
            return False
        if self._calls:
            self.say("<|call|>")
        self._calls = False
        self._channel = ""
        if marker not in ENDS:
            self.at -= len(marker)
        self.mode = self._in_header
        return True
