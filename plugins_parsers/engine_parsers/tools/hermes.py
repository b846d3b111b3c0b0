"""Hermes and Qwen 2.5/3: <tool_call>{"name": …, "arguments": …}</tool_call>."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.plugin import GuideSpec, ParserState, ToolParser, hookimpl
from engine_parsers._grammar import tagged_calls
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1
BEGIN, END = "<tool_call>", "</tool_call>"


class HermesParser(ToolParser):
    """See the module."""

    def markers(self) -> tuple[str, ...]:
        return BEGIN, END

    def start(self, tools: Sequence[dict[str, Any]]) -> ParserState:
        return TaggedCalls((BEGIN,), END)

    def grammar(self, tools: Sequence[dict[str, Any]], *, parallel: bool = True) -> GuideSpec:
        def begin(name: str) -> str:
            return f'{BEGIN}\n{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '

        return tagged_calls(tools, begin, f"}}\n{END}", separator="\n", parallel=parallel)


@hookimpl
def engine_create_tool_parser() -> HermesParser:
    return HermesParser()
