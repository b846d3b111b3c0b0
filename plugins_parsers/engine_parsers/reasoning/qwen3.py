"""Qwen 3 and models that write <think> when they think: reasoning between the tags, without the line breaks beside them."""

from __future__ import annotations

from engine.plugin import ReasoningParser, Tokenizer, hookimpl
from engine_parsers._thinking import TagPairParser

ENGINE_API = 1


@hookimpl
def engine_create_reasoning_parser(tokenizer: Tokenizer) -> ReasoningParser:
    return TagPairParser(tokenizer, ("<think>",), ("</think>",))
