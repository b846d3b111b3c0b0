"""Llama 4: [f(a=1)] between <|python_start|> and <|python_end|>, or as the whole answer."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._python_grammar import PythonFormat
from engine_parsers._pythonic import PythonicCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return PythonFormat(
        lambda tools: PythonicCalls(tools, begin="<|python_start|>", end="<|python_end|>"), ("<|python_start|>", "<|python_end|>"),
        around=("[", "]"), separator=", ",
    )  # fmt: skip
