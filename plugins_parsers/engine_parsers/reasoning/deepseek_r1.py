"""DeepSeek R1: all is reasoning until </think>, with or without <think> before it; not a character is trimmed."""

from __future__ import annotations

from engine.errors import UnavailablePlugin
from engine.plugin import ReasoningParser, Tokenizer, hookimpl
from engine_parsers._thinking import TagPairParser

ENGINE_API = 1
START, END = "<think>", "</think>"


@hookimpl
def engine_create_reasoning_parser(tokenizer: Tokenizer) -> ReasoningParser:
    missing = [tag for tag in (START, END) if tokenizer.token_id(tag) is None]
    if missing:
        raise UnavailablePlugin(
            f"--reasoning-parser deepseek_r1: the model's vocabulary has no token {' and no token '.join(missing)}.",
            fix="--reasoning-parser qwen3, which needs no such token",
        )
    return TagPairParser(tokenizer, (START,), (END,), always=True, trim=False)
