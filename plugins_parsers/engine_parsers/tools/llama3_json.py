"""Llama 3.1 to 3.3: {"name": …, "parameters": …} as the whole answer, or after <|python_tag|>; joined by semicolons."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls, known_names

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    tag = "<|python_tag|>"
    return Format(
        lambda tools: TaggedCalls((tag,), None, known=known_names(tools), bare="{"), (tag,),
        call=("{\"name\": \"NAME\", \"parameters\": ", "}"), separator="; ",
        bare=(
            "{\"name\": \"NAME\", \"parameters\": ", "{\"name\":\"NAME\",\"parameters\":",
            "{\"type\": \"function\", \"name\": \"NAME\", \"parameters\": ", "{\"type\":\"function\",\"name\":\"NAME\",\"parameters\":",
        ),
    )  # fmt: skip
