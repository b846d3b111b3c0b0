"""The body of POST /v1/responses, and what of it this server does not do."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.errors import RequestError


class ReasoningField(msgspec.Struct, kw_only=True):
    """How much to think."""

    effort: str | None = None
    summary: str | None = None


class TextField(msgspec.Struct, kw_only=True):
    """The form of the text."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponsesBody(msgspec.Struct, kw_only=True):
    """POST /v1/responses; the sampling fields after ``user`` are ours."""

    model: str | None = None
    input: str | list[Any] | None = None
    instructions: str | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextField | None = None
    reasoning: ReasoningField | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    include: list[Any] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    truncation: str | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str | None] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    priority: int | None = None
    cache_salt: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    logits_processors: list[Any] | None = None


#: Fields that would need responses to be kept; the value of each is what the client should send instead.
_STORED = {"previous_response_id": "the whole conversation as input", "conversation": "the whole conversation as input",
           "prompt": "instructions and input"}  # fmt: skip


def check(body: ResponsesBody) -> None:
    """Raise RequestError for what cannot be served."""
    for name, instead in _STORED.items():
        if getattr(body, name) is not None:
            raise RequestError(
                f"{name} is not available: this server keeps no responses. Send {instead}.", param=name, code="not_available"
            )
    if body.background:
        raise RequestError("background is not available: this server keeps no responses.", param="background", code="not_available")
    if body.top_logprobs or "message.output_text.logprobs" in (body.include or ()):
        param = "top_logprobs" if body.top_logprobs else "include"
        raise RequestError(
            f"{param}: log-probabilities are not available on this route; /v1/chat/completions has them.", param=param, code="not_available"
        )
    if body.input is None:
        raise RequestError("input is required.", param="input")
    if body.input == [] and not body.instructions:
        raise RequestError("input cannot be empty without instructions.", param="input")
    if body.max_output_tokens is not None and body.max_output_tokens < 1:
        raise RequestError(f"max_output_tokens cannot be {body.max_output_tokens}; allowed: at least 1.", param="max_output_tokens")


#: Fields of the chat body that mean the same there.
SAME = (
    "model", "parallel_tool_calls", "temperature", "top_p", "stream", "user", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "stop", "ignore_eos", "min_tokens", "priority", "cache_salt", "chat_template_kwargs", "logits_processors",
)  # fmt: skip
#: What the chat preparation calls a field, and what it is called here.
RENAMED = {
    "messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format",
    "response_format.type": "text.format.type",
    "response_format.json_schema.schema": "text.format.schema", "reasoning_effort": "reasoning.effort",
}  # fmt: skip
