"""DeepSeek V3, R1 and V3.1: <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>, with or without a JSON fence."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._named import NamedCalls

ENGINE_API = 1
ALL_BEGIN, ALL_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
BEGIN, SEPARATOR, END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"
HEADER = rf"\s*(?:function{SEPARATOR}\s*)?(?P<name>[^\s<`]+)\s*(?:{SEPARATOR})?\s*(?:```(?:json)?\s*)?"


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(
        lambda tools: NamedCalls((BEGIN,), HEADER, (END,), dropped=(ALL_BEGIN, ALL_END), tail=r"\s*(?:```)?\s*"),
        (ALL_BEGIN, ALL_END, BEGIN, SEPARATOR, END),
        call=(f"{BEGIN}function{SEPARATOR}NAME\n```json\n", f"\n```{END}"), separator="\n", around=(ALL_BEGIN, ALL_END),
    )  # fmt: skip
