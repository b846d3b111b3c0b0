"""Kimi K2: <|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>; ids are the model's."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._named import NamedCalls

ENGINE_API = 1
ALL_BEGIN, ALL_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
BEGIN, ARGUMENTS, END = "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"
HEADER = rf"\s*(?P<id>(?:functions\.)?(?P<name>[\w.\-]*[\w\-]):\d+)\s*{ARGUMENTS.replace('|', '[|]')}\s*"


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(
        lambda tools: NamedCalls((BEGIN,), HEADER, (END,), dropped=(ALL_BEGIN, ALL_END)),
        (ALL_BEGIN, ALL_END, BEGIN, ARGUMENTS, END),
        call=(BEGIN + "functions.NAME:", END), around=(ALL_BEGIN, ALL_END), number=("[0-9]{1,3}", ARGUMENTS),
    )  # fmt: skip
