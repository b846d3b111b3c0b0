"""Takes the tool-call parser whose markers the chat template or the vocabulary shows."""

from __future__ import annotations

from engine.plugin import ToolParser, Use, hookimpl
from engine_parsers._recognise import Row, choose

ENGINE_API = 1
#: More particular formats first.
ROWS: tuple[Row, ...] = (
    ("gpt_oss", ("<|channel|>", "<|message|>"), ()),
    ("deepseek_v32", ("｜DSML｜",), ()),
    ("deepseek_v3", ("<｜tool▁sep｜>", "```json"), ()),
    ("deepseek_v31", ("<｜tool▁sep｜>",), ()),
    ("kimi_k2", ("<|tool_call_argument_begin|>",), ()),
    ("minimax_m2", ("<minimax:tool_call>",), ()),
    ("seed_oss", ("<seed:tool_call>",), ()),
    ("glm45", ("<arg_key>",), ()),
    ("qwen3_xml", ("<tool_call>", "<function="), ()),
    ("hermes", ("<tool_call>", '"name"'), ("<|tool_call|>",)),
    ("granite", ("<|tool_call|>",), ()),
    ("granite-20b-fc", ("<function_call>",), ()),
    ("internlm", ("<|action_start|>",), ()),
    ("olmo3", ("<function_calls>",), ()),
    ("minimax_m1", ("<tool_calls>", "tool_calls>\n{"), ()),
    ("jamba", ("<tool_calls>",), ()),
    ("mistral", ("[TOOL_CALLS]",), ()),
    ("phi4_mini_json", ("functools",), ()),
    ("llama4_pythonic", ("<|python_start|>",), ()),
    ("pythonic", ("[func_name1(",), ()),
    ("llama3_json", ("<|python_tag|>",), ()),
    ("hermes", ("<tool_call>",), ()),
)


@hookimpl
def engine_choose_parser(template: str, tokens: frozenset[str]) -> Use | None:
    return choose(ROWS, template, tokens)


@hookimpl
def engine_create_tool_parser() -> ToolParser:
    raise RuntimeError("auto stands for another parser, which is chosen before it is created")
