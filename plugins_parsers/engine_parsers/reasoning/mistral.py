"""Magistral: reasoning between [THINK] and [/THINK]."""

from __future__ import annotations

from engine.plugin import ReasoningParser, Tokenizer, hookimpl
from engine_parsers._thinking import TagPairParser

ENGINE_API = 1


@hookimpl
def engine_create_reasoning_parser(tokenizer: Tokenizer) -> ReasoningParser:
    return TagPairParser(tokenizer, ("[THINK]",), ("[/THINK]",))
