"""Granite 20B function calling: <function_call> {"name": …, "arguments": …}, once per call."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    tag = "<function_call>"
    return Format(
        lambda tools: TaggedCalls((tag,), None), (tag,),
        call=(tag + " {\"name\": \"NAME\", \"arguments\": ", "}"), separator="\n",
    )  # fmt: skip
