"""Granite 3: <|tool_call|> or <tool_call>, then a JSON list of calls."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    tag, closings = "<|tool_call|>", ("<|/tool_call|>", "</tool_call>")
    return Format(
        lambda tools: TaggedCalls((tag, "<tool_call>"), None, closings=closings), (tag, "<tool_call>", *closings),
        call=("{\"name\": \"NAME\", \"arguments\": ", "}"), separator=", ", around=(tag + "[", "]"),
    )  # fmt: skip
