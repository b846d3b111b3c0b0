"""Mistral: [TOOL_CALLS][{"name": …, "arguments": …}], or [TOOL_CALLS]NAME{…} and [TOOL_CALLS]NAME[ARGS]{…}."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._mistral import ARGUMENTS, BEGIN, CALL_ID, MistralCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(
        lambda tools: MistralCalls(), (BEGIN, CALL_ID, ARGUMENTS),
        call=('{"name": "NAME", "arguments": ', "}"), separator=", ", around=(BEGIN + "[", "]"),
    )  # fmt: skip
