"""gpt-oss: a message to functions.NAME on the commentary channel; --reasoning-parser gpt_oss reads the channels."""

from __future__ import annotations

from engine.plugin import ToolParser, hookimpl
from engine_parsers._formats import Format
from engine_parsers._harmony import CALL, ENDS, MARKERS
from engine_parsers._named import NamedCalls

ENGINE_API = 1
BEGIN = (CALL, "<|channel|>analysis to=functions.", "<|start|>assistant to=functions.")
HEADER = r"(?P<name>[\w.\-]+)[^{]*<\|message\|>\s*"


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    return Format(lambda tools: NamedCalls(BEGIN, HEADER, ENDS, dropped=("<|start|>assistant",)), MARKERS)
