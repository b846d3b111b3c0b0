"""OLMo 3: one Python call per line between <function_calls> and </function_calls>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._python_grammar import PythonFormat
from engine_parsers._pythonic import PythonicCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return PythonFormat(
        lambda tools: PythonicCalls(tools, begin="<function_calls>", end="</function_calls>", opener="", closer=""),
        ("<function_calls>", "</function_calls>"), around=("<function_calls>\n", "\n</function_calls>"), separator="\n",
    )  # fmt: skip
