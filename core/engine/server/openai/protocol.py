"""Typed request bodies: wrong types are refused naming the field, unknown fields are accepted and named in a header."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from engine.errors import RequestError
from engine.render.params import SamplingFields

B = TypeVar("B", bound=msgspec.Struct)
MAX_IDENTIFIER = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream tells beside the text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationBody(SamplingFields, kw_only=True):
    """Fields of completions and chat alike."""

    model: str | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    add_special_tokens: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    priority: int | None = None
    request_id: str | None = None
    cache_salt: str | None = None
    echo: bool | None = None
    response_format: dict[str, Any] | None = None
    length_penalty: float | None = None
    use_beam_search: bool | None = None
    logits_processors: list[Any] | None = None
    guided_json: Any = None
    guided_regex: str | None = None
    guided_choice: list[Any] | None = None
    guided_grammar: str | None = None
    guided_decoding_backend: str | None = None
    guided_whitespace_pattern: str | None = None
    structured_outputs: dict[str, Any] | None = None


class CompletionBody(GenerationBody, kw_only=True):
    """POST /v1/completions."""

    prompt: Any = None
    suffix: str | None = None
    logprobs: int | None = None


class ChatBody(GenerationBody, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Any]
    logprobs: bool | None = None
    top_logprobs: int | None = None
    max_completion_tokens: int | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    include_reasoning: bool | None = None
    reasoning_effort: str | None = None
    thinking_budget: int | None = None
    thinking_token_budget: int | None = None
    max_thinking_tokens: int | None = None
    documents: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None


class TokenizeBody(msgspec.Struct, kw_only=True):
    """POST /tokenize, of a prompt or of messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Any] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: list[Any] | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(msgspec.Struct, kw_only=True):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[int]


def read_body(value: dict[str, Any], kind: type[B]) -> tuple[B, list[str]]:
    """The typed body and the names of the fields that it does not have. Raises RequestError naming the field."""
    try:
        body = msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise _wrong_type(error) from error
    for name in ("model", "user", "request_id"):
        _check_identifier(name, value.get(name))
    known = set(kind.__struct_fields__)
    return body, [name for name in value if name not in known]


def ignored_header(names: list[str]) -> dict[str, str]:
    """The header that names ignored fields."""
    return named_header("x-ignored-fields", names)


def named_header(header: str, names: list[str]) -> dict[str, str]:
    """A header that lists names, harmless whatever they are; none without names."""
    if not names:
        return {}
    shown = [re.sub(r"[^A-Za-z0-9_.\-]", "?", name)[:64] for name in names[:20]]
    return {header: ", ".join(shown)}


def _check_identifier(name: str, value: Any) -> None:
    if isinstance(value, str) and (_CONTROL.search(value) or len(value) > MAX_IDENTIFIER):
        raise RequestError(f"{name} cannot hold control characters or be longer than {MAX_IDENTIFIER} characters.", param=name)


def _wrong_type(error: msgspec.ValidationError) -> RequestError:
    text = str(error)
    message, _, path = text.partition(" - at `$")
    field = path.rstrip("`").removeprefix(".") or None
    missing = re.search(r"missing required field `(\w+)`", message)
    if missing:
        field = f"{field}.{missing[1]}" if field else missing[1]
        return RequestError(f"{field} is required.", param=field)
    return RequestError(f"{field or 'The body'}: {message[0].lower()}{message[1:]}.", param=field)
