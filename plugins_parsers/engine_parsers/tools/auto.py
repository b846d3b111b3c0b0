"""Takes the tool-call parser whose markers the chat template or the vocabulary shows."""

from __future__ import annotations

from engine.plugin import ToolParser, Use, hookimpl
from engine_parsers._recognise import Row, choose

ENGINE_API = 1
#: More particular formats first.
ROWS: tuple[Row, ...] = (
    ("hermes", ("<tool_call>",), ()),
)


@hookimpl
def engine_choose_parser(template: str, tokens: frozenset[str]) -> Use | None:
    return choose(ROWS, template, tokens)


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    raise RuntimeError("auto stands for another parser, which is chosen before it is created")
