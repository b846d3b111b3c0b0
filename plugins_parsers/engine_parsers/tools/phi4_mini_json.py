"""Phi 4 mini: functools[{"name": …, "arguments": …}]."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    tag = "functools"
    return Format(
        lambda tools: TaggedCalls((tag,), None, keys=("arguments", "parameters")),
        call=("{\"name\": \"NAME\", \"arguments\": ", "}"), separator=", ", around=(tag + "[", "]"),
    )  # fmt: skip
