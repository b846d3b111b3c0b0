"""MiniMax M1: one JSON call per line between <tool_calls> and </tool_calls>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    begin, end = "<tool_calls>", "</tool_calls>"
    return Format(
        lambda tools: TaggedCalls((begin,), end), (begin, end),
        call=("{\"name\": \"NAME\", \"arguments\": ", "}"), separator="\n", around=(begin + "\n", "\n" + end),
    )  # fmt: skip
