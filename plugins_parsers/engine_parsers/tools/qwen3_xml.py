"""Qwen3-Coder: <tool_call><function=NAME><parameter=KEY>value</parameter></function></tool_call>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._elements import ElementCalls
from engine_parsers._formats import Format

ENGINE_API = 1
OUTER = ("<tool_call>", "</tool_call>")


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(
        lambda tools: ElementCalls(
            tools, outer=OUTER,
            function=("<function=", "</function>"), parameter=("<parameter=", "</parameter>"),
            trim=True,
        ),
        OUTER, call=(OUTER[0] + "\n<function=NAME>\n", "</function>\n" + OUTER[1]), separator="\n", style="qwen_xml",
    )  # fmt: skip
