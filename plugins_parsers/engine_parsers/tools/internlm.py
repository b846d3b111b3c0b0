"""InternLM 2 and 2.5: <|action_start|><|plugin|>{"name": …, "parameters": …}<|action_end|>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._tagged import TaggedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    start, plugin, end = "<|action_start|>", "<|plugin|>", "<|action_end|>"
    return Format(
        lambda tools: TaggedCalls((start + plugin, f"{start} {plugin}", f"{start}\n{plugin}"), end), (start, plugin, end),
        call=(start + plugin + "\n{\"name\": \"NAME\", \"parameters\": ", "}" + end), separator="\n",
    )  # fmt: skip
