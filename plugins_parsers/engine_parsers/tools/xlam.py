"""xLAM: a JSON list of calls, bare, in a code fence, or behind [TOOL_CALLS] or <tool_call>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls, known_names

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    tag, other, closing = "[TOOL_CALLS]", "<tool_call>", "</tool_call>"
    return Format(
        lambda tools: TaggedCalls(
            (tag, other), None, known=known_names(tools), bare="[{", closings=(closing, "```"),
            loose=("```json", "```"), passed=("</think>",),
        ), (tag, other, closing),
        call=("{\"name\": \"NAME\", \"arguments\": ", "}"), separator=", ", around=("[", "]"),
        bare=("{\"name\": \"NAME\", \"arguments\": ", "{\"name\":\"NAME\",\"arguments\":"),
    )  # fmt: skip
