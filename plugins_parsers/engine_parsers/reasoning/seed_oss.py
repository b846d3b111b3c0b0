"""Seed-OSS: reasoning between <seed:think> and </seed:think>."""

from __future__ import annotations

from engine.plugin import ReasoningParser, Tokenizer, hookimpl
from engine_parsers._thinking import TagPairParser

ENGINE_API = 1


@hookimpl
def engine_create_reasoning_parser(tokenizer: Tokenizer) -> ReasoningParser:
    return TagPairParser(tokenizer, ("<seed:think>",), ("</seed:think>",))
