"""Calls written as @call{"name": …, "arguments": …} on a line of their own; a tool parser named example."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.plugin import Delta, ParserState, ToolCallDelta, ToolParser, hookimpl

ENGINE_API = 1
CONFORMANCE = "example_conformance:TestExample"
MARK = "@call"


class CallState(ParserState):
    """A line that begins like a call waits until it is whole; the rest of any other line passes at once."""

    def __init__(self) -> None:
        self.line = ""
        self.passing = False
        self.calls = 0

    def feed(self, text: str, token_ids: Sequence[int]) -> Delta:
        pieces = text.split("\n")
        whole = [self.take(piece + "\n") for piece in pieces[:-1]]
        return join([*whole, self.take(pieces[-1])])

    def take(self, piece: str) -> Delta:
        """A piece of one line; only its end may be the line's."""
        if self.passing:
            self.passing = not piece.endswith("\n")
            return Delta(piece)
        self.line += piece
        if self.line.endswith("\n"):
            return self.read()
        if MARK.startswith(self.line) or self.line.startswith(MARK):
            return Delta()
        line, self.line, self.passing = self.line, "", True
        return Delta(line)

    def read(self) -> Delta:
        """What the finished line is."""
        line, self.line = self.line, ""
        if not line.startswith(MARK):
            return Delta(line)
        try:
            call = json.loads(line[len(MARK) :])
            name, arguments = str(call["name"]), json.dumps(call["arguments"])
        except (ValueError, KeyError, TypeError):
            return Delta(line)
        self.calls += 1
        return Delta(tool_calls=(ToolCallDelta(self.calls - 1, f"call_{self.calls}", name, arguments),))

    def finish(self) -> Delta:
        return self.read() if self.line else Delta()


def join(parts: Sequence[Delta]) -> Delta:
    """One delta of several."""
    return Delta("".join(part.content for part in parts), "", tuple(call for part in parts for call in part.tool_calls))


class CallParser(ToolParser):
    """One JSON object per call."""

    def start(self, tools: Sequence[dict[str, Any]]) -> ParserState:
        return CallState()


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return CallParser()
