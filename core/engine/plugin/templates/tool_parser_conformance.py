"""Holds the tool parser to its contract, with outputs in its format."""

from __future__ import annotations

from engine.plugin.testing import ToolParserContract

_CALL = '@call{"name": "get_weather", "arguments": {"city": "Oslo"}}'


class TestExample(ToolParserContract):
    name = "example"
    outputs = (_CALL, f"Let me see.\n{_CALL}\n{_CALL}", "@cal", "@call{broken\n", "a @call in a line\n")
    examples = {f"Let me see.\n{_CALL}": ("Let me see.", (("get_weather", {"city": "Oslo"}),))}
