"""Hermes and Qwen 2.5/3: <tool_call>{"name": …, "arguments": …}</tool_call>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    begin, end = "<tool_call>", "</tool_call>"
    return Format(
        lambda tools: TaggedCalls((begin,), end), (begin, end),
        call=(begin + "\n{\"name\": \"NAME\", \"arguments\": ", "}\n" + end), separator="\n",
    )  # fmt: skip
