"""Mistral's calls: a JSON list behind [TOOL_CALLS], or (since 2025) name and arguments."""

from __future__ import annotations

import re
import secrets

from engine_parsers._json import Malformed, Value
from engine_parsers._markers import Markers
from engine_parsers._tagged import TaggedCalls

BEGIN, CALL_ID, ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
MAX_HEADER = 512
_HEADER = re.compile(r"\s*([\w.\-]+)\s*(?:\[CALL_ID\]\s*(\w+)\s*)?(?:\[ARGS\])?\s*")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class MistralCalls(TaggedCalls):
    """Ids have the nine letters and digits that Mistral's chat templates insist on."""

    def __init__(self) -> None:
        super().__init__((BEGIN,), None)
        self._stop = Markers(("{", BEGIN))
        self._header: list[str] = []
        self._length = 0
        self._value = Value("{")

    def new_id(self) -> str:
        """See the class."""
        return "".join(secrets.choice(_ALPHABET) for _ in range(9))

    def _leave(self, ended: bool) -> None:
        """What follows the marker and is neither object nor list may be a name."""
        if self._found:
            super()._leave(ended)
        else:
            self._header, self._length = [], 0
            self.mode = self._in_header

    def _in_header(self) -> bool:
        text, marker = self.until(self._stop)
        self._header.append(text)
        self._length += len(text)
        if marker is None and not self.final and self._length <= MAX_HEADER:
            return False
        header = "".join(self._header)
        match = _HEADER.fullmatch(header) if marker == "{" else None
        if marker is not None:
            self.at -= len(marker)
        if match is None:
            self.say("".join(self._raw) + header)
            self._raw = []
            self.mode = self._plain if marker == "{" else self._outside
            return marker is not None or not self.final
        self._raw = []
        self.begin_call(match[1], match[2])
        self._value = Value("{")
        self.mode = self._in_arguments
        return True

    def _plain(self) -> bool:
        """A brace that begins no arguments."""
        self.say("{")
        self.at += 1
        self.mode = self._outside
        return True

    def _in_arguments(self) -> bool:
        start = self.at
        try:
            self.at = self._value.read(self.text, start)
        except Malformed as error:
            self.add_arguments(self.text[start : error.at])
            self.at = error.at
            self.mode = self._outside
            return True
        self.add_arguments(self.text[start : self.at])
        if not self._value.done:
            return False
        self.mode = self._outside
        return True
