"""Tool parsers from a description of their format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from engine.plugin import GuideSpec, ParserState, ToolParser
from engine_parsers._grammar import offered_calls, spotted_calls, tagged_calls

Start = Callable[[Sequence[dict[str, Any]]], ParserState]

#: Characters of a text that is no marker and yet tells calls from an answer.
SHORTEST_WORD = 4


class Format(ToolParser):
    """``start`` makes the state. ``call``: how a call begins, with ``NAME`` (as JSON text: ``"NAME"``) in place of the function's name, and
    how it ends; ``separator`` stands between calls, ``around`` before and after all of them; ``style``: how arguments are written;
    ``number``: what stands before them. Without ``call`` calls cannot be enforced. ``bare``: how models begin calls where no marker
    does, each with ``"NAME"`` and up to the arguments."""

    def __init__(
        self, start: Start, markers: Sequence[str] = (), *, call: tuple[str, str] | None = None, separator: str = "",
        around: tuple[str, str] = ("", ""), style: str = "json", number: tuple[str, str] | None = None,
        bare: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._start = start
        self._markers = tuple(markers)
        self._call = call
        self._separator = separator
        self._around = around
        self._style = style
        self._number = number
        self._bare = tuple(bare)

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
        before, after = self._around
        return tagged_calls(
            tools, self._opening, self._call[1], separator=self._separator, parallel=parallel, before=before, after=after,
            style=self._style, number=self._number, markers=self._markers,
        )  # fmt: skip

    def offer(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec | None:
        """See the contract: where calls begin with a marker, or a word, or with the name of a tool in a known place."""
        if self._bare and self._call is not None:
            return spotted_calls(tools, self._bare, self._call[1], parallel=parallel, markers=self._markers)
        before, after = self._around
        begins = before or (self._call[0].partition("NAME")[0] if self._call is not None else "")
        word = before if len(before) >= SHORTEST_WORD else ""
        trigger = max((marker for marker in self._markers if begins.startswith(marker)), key=len, default=word)
        if self._call is None or not trigger:
            return None
        return offered_calls(
            tools, self._opening, self._call[1], trigger=trigger, separator=self._separator, parallel=parallel, before=before,
            after=after, style=self._style, number=self._number, markers=self._markers,
        )  # fmt: skip

    def _opening(self, name: str) -> str:
        """How a call of that function begins."""
        begin = self._call[0] if self._call is not None else ""
        return begin.replace('"NAME"', json.dumps(name, ensure_ascii=False)).replace("NAME", name)
