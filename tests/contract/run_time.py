"""The table of run-time faults: what a plugin does wrong in a request, and how that request is answered. Everybody else notices nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SHORT: dict[str, Any] = {"model": "demo", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
#: Longer than what is tokenized on the event loop.
LONG = "word " * 60


@dataclass(frozen=True)
class Fault:
    """``path`` and ``body`` of the request that meets it; ``status`` and ``code`` of its answer; ``kind`` of the plugin that is named."""

    kind: str
    what: str
    path: str
    body: dict[str, Any] | None = field(hash=False)
    status: int = 500
    code: str = "plugin_error"

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.kind}, {self.what}"


def _processor(fault: str, **answer: Any) -> Fault:
    asked = [{"name": "chaos_processor", "kwargs": {"fault": fault}}]
    return Fault("logits_processor", fault, "/v1/completions", SHORT | {"prompt": "Hello", "logits_processors": asked}, **answer)


def _guide(fault: str, **answer: Any) -> Fault:
    body = SHORT | {"prompt": "Hello", "guided_choice": [fault], "guided_decoding_backend": "chaos_guide:no-fallback", "ignore_eos": False}
    return Fault("guided_decoding", fault, "/v1/completions", body, **answer)


def _reasoning(where: str, fault: str) -> Fault:
    messages = [{"role": "user", "content": f"<<{where} {fault}>>"}]
    return Fault("reasoning_parser", f"{where} {fault}", "/v1/chat/completions", SHORT | {"messages": messages})


def _tools(where: str, fault: str) -> Fault:
    tool = {"type": "function", "function": {"name": "f", "description": f"{where} {fault}", "parameters": {"type": "object"}}}
    body = SHORT | {"messages": [{"role": "user", "content": "Hello"}], "tools": [tool]}
    return Fault("tool_parser", f"{where} {fault}", "/v1/chat/completions", body)


def _tokenizer(fault: str) -> Fault:
    return Fault("tokenizer", fault, "/v1/completions", SHORT | {"prompt": f"[[{fault}]]"})


def _pool(fault: str) -> Fault:
    return Fault("tokenizer_pool", fault, "/v1/completions", SHORT | {"prompt": LONG + f"{{{{{fault}}}}}"})


def _policy(what: str, priority: int) -> Fault:
    return Fault("policy", what, "/v1/completions", SHORT | {"prompt": "Hello", "priority": priority})


FAULTS = (
    *map(_processor, (
        "validate raises", "begin raises", "raises", "exits", "returns None", "returns another shape", "returns NaN", "writes NaN in place",
        "returns infinity", "loops", "catches what stops it",
    )),
    _processor("ends the process", code="engine_error"),
    *map(_guide, ("compile raises", "compile ends the process", "start raises", "fill raises", "advance raises")),
    # Asleep it uses none of the processor time that it may have: no cause to refuse the constraint for good.
    _guide("compile sleeps", status=429, code="too_many_constraints"),
    *(_reasoning("start", fault) for fault in ("raises", "returns None")),
    *(_reasoning("feed", fault) for fault in ("raises", "exits", "returns None", "returns garbage", "loops", "sleeps")),
    _reasoning("finish", "raises"),
    _reasoning("thinking", "raises"),
    *(_tools("start", fault) for fault in ("raises", "returns None")),
    *(_tools("feed", fault) for fault in ("raises", "returns garbage", "sleeps")),
    _tools("finish", "raises"),
    *map(_tokenizer, ("raises", "returns None", "returns ids of another vocabulary", "returns negative ids", "returns texts", "sleeps")),
    Fault("tokenizer", "decode raises", "/detokenize", {"model": "demo", "tokens": [7, 7, 7]}),
    *map(_pool, ("raises", "returns None")),
    _policy("key raises", 1), _policy("key is None", 2), _policy("keys cannot be compared", 3), _policy("key sleeps", 4),
    _policy("key exits", 5), _policy("check raises", 9),
    Fault("extension", "a route raises", "/chaos/raises", None),
    Fault("extension", "a route refuses", "/chaos/refuses", None, 418, "418"),
    Fault("extension", "an observer raises", "/v1/completions", SHORT | {"prompt": "Hello", "max_tokens": 1}, 200, ""),
)  # fmt: skip
