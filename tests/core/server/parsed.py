"""Real parsers around the fake engine: scripted thoughts, texts and tool calls."""

from __future__ import annotations

from typing import Any

from engine.plugin import kinds
from engine.plugin.host import PluginHost
from engine.server.parsing import Parsers
from tests.core.server.fake_client import FakeClient
from tests.core.server.real_tokenizer import byte_tokenizer

MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
THOUGHT = "Hmm, the capital…\nis known."
TEXT = "Let me look. 🤖"
CALLS = (("get_weather", '{"city": "Zürich"}'), ("get_time", "{}"))
SCRIPT = f"{THOUGHT}</think>\n\n{TEXT}\n" + "\n".join(
    f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>' for name, arguments in CALLS
)


def parsed() -> dict[str, Any]:
    """For the application: a tokenizer with the markers, deepseek_r1 (the output begins inside the thinking) and hermes."""
    host, tokenizer = PluginHost(), byte_tokenizer(*MARKERS)
    reasoning = host.create(kinds.REASONING_PARSER, "deepseek_r1", tokenizer=tokenizer, options={}).plugin
    tools = host.create(kinds.TOOL_PARSER, "hermes", tokenizer=tokenizer, options={}).plugin
    return {"tokenizer": tokenizer, "parsers": Parsers(tokenizer, reasoning, tools, auto_tools=True)}


def speaking(text: str, **options: Any) -> FakeClient:
    """An engine that says exactly this."""
    return FakeClient(script=byte_tokenizer(*MARKERS).encode(text), **options)
