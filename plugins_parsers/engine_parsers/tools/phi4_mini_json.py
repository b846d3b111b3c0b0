"""Phi 4 mini: functools[{"name": …, "arguments": …}], or the list between <|tool_call|> and <|/tool_call|>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    tag, other, closing = "functools", "<|tool_call|>", "<|/tool_call|>"
    return Format(
        lambda tools: TaggedCalls((tag, other), None, closings=(closing,)), (other, closing),
        call=("{\"name\": \"NAME\", \"arguments\": ", "}"), separator=", ", around=(tag + "[", "]"),
    )  # fmt: skip
