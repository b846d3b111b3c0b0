"""DeepSeek V3.1: <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>; reads the older form too."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._named import NamedCalls
from engine_parsers.tools.deepseek_v3 import ALL_BEGIN, ALL_END, BEGIN, END, HEADER, SEPARATOR

ENGINE_API = 1


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(
        lambda tools: NamedCalls((BEGIN,), HEADER, (END,), dropped=(ALL_BEGIN, ALL_END), tail=r"\s*(?:```)?\s*"),
        (ALL_BEGIN, ALL_END, BEGIN, SEPARATOR, END),
        call=(f"{BEGIN}NAME{SEPARATOR}", END), around=(ALL_BEGIN, ALL_END),
    )  # fmt: skip
