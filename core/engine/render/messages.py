"""Messages of a chat request: checked, and shaped the way the chat template expects them."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import RequestError
from engine.render.content import TemplateHabits

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MESSAGES = 10_000


def shape_messages(messages: list[Any], habits: TemplateHabits, *, content_format: str = "auto") -> list[dict[str, Any]]:
    """Checked copies of ``messages`` for a template. ``content_format``: auto, string or openai. Raises RequestError naming the place."""
    if not messages:
        raise RequestError("messages cannot be empty; give at least one message.", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise RequestError(f"messages cannot have {len(messages)} entries; allowed: at most {MAX_MESSAGES}.", param="messages")
    parts = habits.parts if content_format == "auto" else content_format == "openai"
    return [_shape(message, f"messages[{index}]", habits, parts) for index, message in enumerate(messages)]


def _shape(message: Any, where: str, habits: TemplateHabits, parts: bool) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RequestError(f"{where} must be an object, not {_kind(message)}.", param=where)
    role = message.get("role")
    if role not in ROLES:
        raise RequestError(f"{where}.role cannot be {_short(role)}; allowed: {', '.join(ROLES)}.", param=f"{where}.role")
    shaped: dict[str, Any] = {"role": "system" if role == "developer" and not habits.developer else role}
    calls = message.get("tool_calls") or None
    content = message.get("content")
    reasoning = _text(message, "reasoning", where) or _text(message, "reasoning_content", where)
    if content is None and role == "assistant" and calls is None:
        # an answer of this server's own, sent back: one cut short while it thought, or a refusal
        content = _text(message, "refusal", where) or ("" if reasoning else None)
    shaped["content"] = _content(content, where, parts, optional=role == "assistant" and calls is not None)
    if calls is not None:
        if role != "assistant":
            raise RequestError(f"{where}.tool_calls belongs to assistant messages only.", param=f"{where}.tool_calls")
        shaped["tool_calls"] = _calls(calls, f"{where}.tool_calls", habits.text_arguments)
    if role == "tool":
        shaped["tool_call_id"] = _text(message, "tool_call_id", where, required=True)
    name = _text(message, "name", where)
    if name is not None:
        shaped["name"] = name
    if reasoning is not None:
        shaped["reasoning"] = shaped["reasoning_content"] = reasoning
    return shaped


def _content(content: Any, where: str, parts: bool, *, optional: bool) -> Any:
    where = f"{where}.content"
    if content is None:
        if optional:
            return None
        cause = f"{where} cannot be null (only an assistant message with tool_calls, reasoning or refusal may leave it out)."
        raise RequestError(cause, param=where)
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if parts else content
    if not isinstance(content, list):
        raise RequestError(f"{where} must be a text or a list of parts, not {_kind(content)}.", param=where)
    texts = [read_part(part, f"{where}[{index}]") for index, part in enumerate(content)]
    if parts:
        return [{"type": "text", "text": text} for text in texts]
    return "\n".join(texts)


def read_part(part: Any, where: str) -> str:
    """The text of one part of a message's content. Raises RequestError naming ``where``."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise RequestError(f"{where} must be an object with a type, not {_kind(part)}.", param=where)
    kind = part.get("type")
    key = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}.get(str(kind))
    if key is None:
        raise RequestError(f"{where}.type cannot be {_short(kind)}: this model reads text parts only.", param=f"{where}.type")
    text = part.get(key)
    if not isinstance(text, str):
        raise RequestError(f"{where}.{key} must be a text, not {_kind(text)}.", param=f"{where}.{key}")
    return text


def _calls(calls: Any, where: str, as_text: bool) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise RequestError(f"{where} must be a list, not {_kind(calls)}.", param=where)
    shaped = []
    for index, call in enumerate(calls):
        at = f"{where}[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError(f"{at}.function must be an object with a name.", param=f"{at}.function")
        arguments = _arguments(function.get("arguments"), f"{at}.function.arguments", as_text)
        shaped.append({**call, "type": call.get("type") or "function", "function": {**function, "arguments": arguments}})
    return shaped


def _arguments(arguments: Any, where: str, as_text: bool) -> Any:
    """Clients send JSON text; most templates want the object."""
    if as_text:
        return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    if arguments is None or arguments == "":
        return {}
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} must be JSON text: {error}.", param=where) from error


def _text(message: dict[str, Any], key: str, where: str, *, required: bool = False) -> str | None:
    value = message.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, str) or (required and not value):
        raise RequestError(f"{where}.{key} must be a text, not {_kind(value)}.", param=f"{where}.{key}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else {dict: "an object", list: "a list", str: "a text", bool: "a boolean"}.get(type(value), "a number")


def _short(value: Any) -> str:
    return repr(value)[:60]
