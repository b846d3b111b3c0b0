"""How long an answer may think, and where in it a constraint begins."""

from __future__ import annotations

from typing import Any

import msgspec

from engine.errors import RequestError
from engine.plugin.contracts.text import Thinking
from engine.plugin.request import GuideSpec, ThinkingLimit
from engine.server.openai.protocol import ChatBody

#: Fields that say it, in order; the last is a key of chat_template_kwargs.
BUDGETS = ("thinking_budget", "thinking_token_budget", "max_thinking_tokens")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def template_options(body: Any) -> dict[str, Any]:
    """chat_template_kwargs with what reasoning_effort says: templates know ``reasoning_effort``, or ``enable_thinking`` for none."""
    options: dict[str, Any] = dict(body.chat_template_kwargs or {})
    effort = getattr(body, "reasoning_effort", None)
    if effort is None:
        return options
    if effort not in EFFORTS:
        raise RequestError(
            f"reasoning_effort cannot be {effort[:40]!r}; allowed: {', '.join(EFFORTS)}.", param="reasoning_effort"
        )
    return {"reasoning_effort": effort} | ({"enable_thinking": False} if effort == "none" else {}) | options


def thinking_limit(body: ChatBody, thinking: Thinking | None) -> ThinkingLimit | None:
    """The limit that the body asks for. ``thinking`` None: the server splits no reasoning. Raises RequestError where it cannot be kept."""
    field, budget = _budget(body)
    if budget is None or (field == "chat_template_kwargs" and (thinking is None or not thinking.forced)):
        return None
    if budget < 0:
        raise RequestError(f"{field} cannot be {budget}; allowed: at least 0.", param=field)
    if thinking is None:
        fix = "start the server with --reasoning-parser auto"
        raise RequestError(f"{field} needs a server that knows where thinking ends.", param=field, fix=fix)
    if thinking.state == "closed":
        return None
    if not thinking.forced or not (thinking.start or thinking.state == "open"):
        cause = f"{field} is not available: this model's thinking has no tokens of its own that begin and end it."
        raise RequestError(cause, param=field, code="not_available")
    return ThinkingLimit(budget, thinking.state == "open", thinking.start, thinking.end, thinking.forced)


def after_thinking(guide: GuideSpec, thinking: Thinking | None) -> GuideSpec:
    """``guide`` for the answer alone: it begins when the thinking ends, or with the first token where there is none."""
    if thinking is None or thinking.state == "closed" or guide.options.get("thinks"):
        return guide
    if thinking.state == "possible":
        if not (thinking.start and thinking.end):
            return guide
        return msgspec.structs.replace(guide, start_after=thinking.end, opens=thinking.start)
    if not thinking.end:
        cause = "An output constraint is not available while this model thinks: its vocabulary has no token that ends the thinking."
        raise RequestError(cause, param="response_format", code="not_available", fix="turn thinking off with chat_template_kwargs")
    return msgspec.structs.replace(guide, start_after=thinking.end)


def _budget(body: ChatBody) -> tuple[str, int | None]:
    for field in BUDGETS:
        value = getattr(body, field)
        if value is not None:
            return field, value
    value = (body.chat_template_kwargs or {}).get("thinking_budget")
    if type(value) is int and value >= 0:
        return "chat_template_kwargs", value
    if body.reasoning_effort == "none":
        return "chat_template_kwargs", 0
    return "", None
