"""DeepSeek V3.2: <｜DSML｜invoke name="NAME"> with one <｜DSML｜parameter name="KEY" string="true"> for each argument."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._elements import ElementCalls
from engine_parsers._formats import Format

ENGINE_API = 1
OUTER = ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>")


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(
        lambda tools: ElementCalls(tools, outer=OUTER, function=("<｜DSML｜invoke", "</｜DSML｜invoke>"),
            parameter=("<｜DSML｜parameter", "</｜DSML｜parameter>"), trim=False, attributes=True),
        OUTER, call=('<｜DSML｜invoke name="NAME">\n', "</｜DSML｜invoke>"), separator="\n", around=(OUTER[0] + "\n", "\n" + OUTER[1]),
        style="deepseek_xml",
    )  # fmt: skip
