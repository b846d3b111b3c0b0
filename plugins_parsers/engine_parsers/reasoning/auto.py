"""Takes the reasoning parser whose markers the chat template or the vocabulary shows."""

from __future__ import annotations

from engine.plugin import ReasoningParser, Use, hookimpl
from engine_parsers._recognise import Row, choose

ENGINE_API = 1
#: More particular formats first.
ROWS: tuple[Row, ...] = (
    ("gpt_oss", ("<|channel|>", "<|message|>"), ()),
    ("seed_oss", ("<seed:think>",), ()),
    ("mistral", ("[THINK]",), ()),
    ("glm45", ("<think>", "<arg_key>"), ()),
    ("deepseek_r1", ("<think>", "<｜Assistant｜>"), ("enable_thinking", "thinking is defined")),
    ("qwen3", ("<think>",), ()),
    ("granite", ("Here is my thought process:",), ()),
)


@hookimpl
def engine_choose_parser(template: str, tokens: frozenset[str]) -> Use | None:
    return choose(ROWS, template, tokens)


@hookimpl
def engine_create_reasoning_parser() -> ReasoningParser:
    raise RuntimeError("auto stands for another parser, which is chosen before it is created")
