"""The bodies of POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.errors import RequestError


class ThinkingField(msgspec.Struct, kw_only=True):
    """Whether to think, and for how many tokens at most."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class OutputConfig(msgspec.Struct, kw_only=True):
    """How much to think, and the form of the text."""

    effort: str | None = None
    format: dict[str, Any] | None = None


class CountBody(msgspec.Struct, kw_only=True):
    """What decides the prompt; the fields of both routes. What only a hosted service does is accepted and ignored."""

    model: str | None = None
    messages: list[Any]
    system: str | list[Any] | None = None
    tools: list[Any] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: ThinkingField | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None
    cache_control: Any = None
    context_management: Any = None
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesBody(CountBody, kw_only=True):
    """The sampling fields after ``service_tier`` are ours."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    priority: int | None = None
    cache_salt: str | None = None
    logits_processors: list[Any] | None = None


#: Fields of the chat body that mean the same there.
SAME = (
    "model", "max_tokens", "stream", "temperature", "top_k", "top_p", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "seed", "ignore_eos", "min_tokens", "priority", "cache_salt", "logits_processors",
)  # fmt: skip
#: What the chat preparation calls a field, and what it is called here.
RENAMED = {
    "stop": "stop_sequences", "response_format": "output_config.format",
    "response_format.type": "output_config.format.type",
    "response_format.json_schema.schema": "output_config.format.schema", "reasoning_effort": "output_config.effort",
}  # fmt: skip
_THINKING = ("enabled", "disabled", "adaptive", "between_tools")


def thinking_options(body: CountBody) -> dict[str, Any]:
    """chat_template_kwargs with the switch that templates of thinking models have, and the budget, which is kept where it can be:
    clients send both to models that do not think, too. The client's own values stand."""
    options = dict(body.chat_template_kwargs or {})
    thinking = body.thinking
    if thinking is None:
        return options
    if thinking.type not in _THINKING:
        raise RequestError(f"thinking.type cannot be {thinking.type[:40]!r}; allowed: {', '.join(_THINKING)}.", param="thinking.type")
    if thinking.type in ("enabled", "disabled"):
        options.setdefault("enable_thinking", thinking.type == "enabled")
    budget = thinking.budget_tokens
    if thinking.type == "enabled" and budget is not None:
        if budget < 1:
            raise RequestError(f"thinking.budget_tokens cannot be {budget}; allowed: at least 1.", param="thinking.budget_tokens")
        options.setdefault("thinking_budget", budget)
    return options


def answer_format(body: CountBody) -> dict[str, Any] | None:
    """The answer's form as chat has it."""
    asked = body.output_config.format if body.output_config is not None else None
    asked = asked or body.output_format
    if asked is None or asked.get("type") != "json_schema":
        return asked
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": asked.get("schema")}}
