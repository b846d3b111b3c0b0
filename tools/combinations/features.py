"""The features: what they add to a request or to the engine, and how an answer shows that they worked."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_SCHEMA = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"], "additionalProperties": False}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
    },
}
#: A few words that the model does not need, so that there is a prompt to cache and to cut into chunks.
_PADDING = "Read this and forget it. " * 24
QUESTION = "What is 17 + 25?"
WEATHER = "What is the weather in Paris?"
STOP = "12"


@dataclass(frozen=True)
class Feature:
    """``fields`` of the request and ``flags`` of the engine. ``shapes``: it may change the tokens; otherwise they must stay the same.
    ``front``: its flags concern the front end alone."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    shapes: bool = False
    front: bool = False


FEATURES = (
    Feature("guided", {"response_format": {"type": "json_schema", "json_schema": {"name": "sum", "schema": _SCHEMA}}}, shapes=True),
    Feature("reasoning", flags={"reasoning_parser": "qwen3"}, front=True),
    Feature("tools", {"tools": [_TOOL]}, {"tool_call_parser": "hermes", "enable_auto_tool_choice": True}, shapes=True, front=True),
    Feature("n > 1", {"n": 3, "temperature": 1.0, "top_k": 1}),  # greedy: several choices at temperature 0 are refused, being all the same
    Feature("logprobs", {"logprobs": True, "top_logprobs": 3}),
    Feature("penalties", {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.2}, shapes=True),
    Feature("stop strings", {"stop": [STOP]}),
    Feature("prefix cache hit", flags={"enable_prefix_caching": True}),
    Feature("chunked prefill", flags={"enable_chunked_prefill": True, "max_num_batched_tokens": 32}),
    Feature("preemption", flags={"num_gpu_blocks_override": 29}),
)
#: Flags of the plain path; a feature's own replace them.
PLAIN: dict[str, Any] = {
    "max_model_len": 448, "max_num_seqs": 8, "max_num_batched_tokens": 2048, "enable_chunked_prefill": False, "swap_space": 0,
    "enable_prefix_caching": False, "num_gpu_blocks_override": 400,
}  # fmt: skip
#: Pages where preemption and tools, whose prompts are longer, come together.
MORE_PAGES = 39
#: Requests at a time where sequences are to be preempted.
CROWD = 6


def body(features: tuple[Feature, ...], number: int = 0) -> dict[str, Any]:
    """A chat request with these features. ``number`` makes its prompt another one."""
    question = WEATHER if any(feature.name == "tools" for feature in features) else QUESTION
    fields: dict[str, Any] = {}
    for feature in features:
        fields |= feature.fields
    start = f"{number} " if number else ""
    return {"messages": [{"role": "user", "content": f"{start}{_PADDING}{question}"}], "temperature": 0, "max_tokens": 110} | fields


@dataclass(frozen=True)
class Answer:
    """One choice as the engine and the parsers gave it."""

    tokens: tuple[int, ...]
    content: str
    reasoning: str
    calls: tuple[tuple[str, str], ...]
    logprobs: int
    finish: str


def problem(names: frozenset[str], answers: list[Answer]) -> str | None:
    """What one of the features should have done and did not, as far as one request's choices show; None where all did."""
    first = answers[0]
    if any(answer.tokens != first.tokens for answer in answers):
        return "the choices differ"
    if "n > 1" in names and len(answers) != 3:
        return "there are not three choices"
    if "logprobs" in names and any(answer.logprobs != len(answer.tokens) for answer in answers):
        return "tokens without log-probabilities"
    if "reasoning" in names and ("think>" in first.content + first.reasoning or not first.reasoning):
        return "the reasoning does not stand apart"
    if "stop strings" in names and STOP in first.content:
        return "the stop string is in the answer"
    if "guided" in names and first.finish == "stop" and "stop strings" not in names and not first.calls and not _valid(first.content):
        return "the answer does not satisfy the schema"
    return None


def _valid(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) == {"sum"} and type(value["sum"]) is int
