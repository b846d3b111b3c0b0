"""Granite 3.2: plain sentences announce reasoning (Here is my thought process:) and answer (Here is my response:)."""

from __future__ import annotations

from engine.plugin import ReasoningParser, Tokenizer, hookimpl
from engine_parsers._thinking import TagPairParser

ENGINE_API = 1
STARTS = ("Here is my thought process:", "Here's my thought process:")
ENDS = ("Here is my response:", "Here's my response:")


@hookimpl
def engine_create_reasoning_parser(tokenizer: Tokenizer) -> ReasoningParser:
    return TagPairParser(tokenizer, STARTS, ENDS)
