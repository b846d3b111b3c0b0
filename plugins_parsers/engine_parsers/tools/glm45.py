"""GLM 4.5 to 4.7: <tool_call>NAME<arg_key>KEY</arg_key><arg_value>value</arg_value></tool_call>."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._keyed import BEGIN, END, KEY, KEY_END, VALUE, VALUE_END, KeyedCalls

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    markers = (BEGIN, END, KEY, KEY_END, VALUE, VALUE_END)
    return Format(KeyedCalls, markers, call=(BEGIN + "NAME\n", END), separator="\n", style="glm_xml")
