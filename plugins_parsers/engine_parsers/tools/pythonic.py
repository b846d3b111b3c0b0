"""Python calls as the whole answer: [f(a=1), g(b="x")] (Llama 3.2 and 4, ToolACE)."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._python_grammar import PythonFormat
from engine_parsers._pythonic import PythonicCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return PythonFormat(PythonicCalls, around=("[", "]"), separator=", ")
