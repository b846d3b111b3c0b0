"""MiniMax M2: <minimax:tool_call><invoke name="NAME"><parameter name="KEY">value</parameter></invoke></minimax:tool_call>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._elements import ElementCalls
from engine_parsers._formats import Format

ENGINE_API = 1
OUTER = ("<minimax:tool_call>", "</minimax:tool_call>")


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(
        lambda tools: ElementCalls(
            tools, outer=OUTER,
            function=("<invoke", "</invoke>"), parameter=("<parameter", "</parameter>"),
            trim=True, attributes=True,
        ),
        OUTER, call=('<invoke name="NAME">\n', "</invoke>"), separator="\n", around=(OUTER[0] + "\n", "\n" + OUTER[1]),
        style="minimax_xml",
    )  # fmt: skip
