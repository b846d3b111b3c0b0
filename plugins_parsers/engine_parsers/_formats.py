"""Tool parsers from a description of their format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from engine.plugin import GuideSpec, ParserState, ToolParser
from engine_parsers._grammar import tagged_calls

Start = Callable[[Sequence[dict[str, Any]]], ParserState]


class Format(ToolParser):
    """``start`` makes the state. ``call``: how a call begins, with ``NAME`` (as JSON text: ``"NAME"``) in place of the function's name, and
    how it ends; ``separator`` stands between calls, ``around`` before and after all of them; ``style``: how arguments are written;
    ``number``: what stands before them. Without ``call`` calls cannot be enforced."""

    def __init__(
        self, start: Start, markers: Sequence[str] = (), *, call: tuple[str, str] | None = None, separator: str = "",
        around: tuple[str, str] = ("", ""), style: str = "json", number: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        self._start = start
        self._markers = tuple(markers)
        self._call = call
        self._separator = separator
        self._around = around
        self._style = style
        self._number = number

    def markers(self) -> tuple[str, ...]:
        """See the contract."""
        return self._markers

    def start(self, tools: Sequence[dict[str, Any]]) -> ParserState:
        """See the contract."""
        return self._start(tools)

    def grammar(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """See the contract."""
        if self._call is None:
            return None
        begin, end = self._call

        def opening(name: str) -> str:
            return begin.replace('"NAME"', json.dumps(name, ensure_ascii=False)).replace("NAME", name)

        before, after = self._around
        return tagged_calls(
            tools, opening, end, separator=self._separator, parallel=parallel, before=before, after=after, style=self._style,
            number=self._number, markers=self._markers,
        )  # fmt: skip
