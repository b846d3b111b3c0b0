"""Input items to chat messages: an assistant's reasoning, text and calls become one message."""

from __future__ import annotations

from typing import Any

from engine.errors import RequestError
from engine.render.messages import read_part

#: More than any conversation has; the template's own limits are stricter.
MAX_ITEMS = 50_000
_ROLES = ("user", "assistant", "system", "developer")


def read_input(value: str | list[Any], instructions: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """(messages, the kinds of items that were left out because nothing here can read them). Raises RequestError naming the item."""
    reader = _Reader()
    if instructions:
        reader.messages.append({"role": "system", "content": instructions})
    if isinstance(value, str):
        reader.messages.append({"role": "user", "content": value})
        return reader.messages, []
    if len(value) > MAX_ITEMS:
        raise RequestError(f"input cannot have {len(value)} items; allowed: at most {MAX_ITEMS}.", param="input")
    for index, item in enumerate(value):
        reader.read(item, f"input[{index}]")
    return reader.messages, reader.skipped


class _Reader:
    """Messages so far. ``_turn`` is the assistant message that the next item may still add to."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.skipped: list[str] = []
        self._turn: dict[str, Any] | None = None

    def read(self, item: Any, where: str) -> None:
        if not isinstance(item, dict):
            raise RequestError(f"{where} must be an object.", param=where)
        kind = item.get("type") or "message"
        if kind == "message":
            self._message(item, where)
        elif kind == "reasoning":
            self._reasoning(item, where)
        elif kind == "function_call":
            self._call(item, where)
        elif kind == "function_call_output":
            self._output(item, where)
        elif kind == "item_reference":
            raise RequestError(f"{where} refers to a stored item, and this server keeps none. Send the item itself.", param=where)
        else:
            self.skipped.append(str(kind))

    def _message(self, item: dict[str, Any], where: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role not in _ROLES:
            raise RequestError(f"{where}.role cannot be {str(role)[:60]!r}; allowed: {', '.join(_ROLES)}.", param=f"{where}.role")
        read = _content(content, f"{where}.content")
        if role == "assistant":
            turn = self._begin(fresh=self._turn is not None and bool(self._turn.get("content") or self._turn.get("tool_calls")))
            turn["content"] = read
        else:
            self._turn = None
            self.messages.append({"role": role, "content": read})

    def _reasoning(self, item: dict[str, Any], where: str) -> None:
        name = "content" if _list(item, "content", where) else "summary"
        texts = [_text(part, f"{where}.{name}[{index}]") for index, part in enumerate(_list(item, name, where))]
        if texts:
            self._begin(fresh=True)["reasoning"] = "\n".join(texts)

    def _call(self, item: dict[str, Any], where: str) -> None:
        name = _required(item, "name", where)
        arguments = item.get("arguments")
        if not isinstance(arguments, str):
            raise RequestError(f"{where}.arguments must be JSON text.", param=f"{where}.arguments")
        call = {"id": _required(item, "call_id", where), "type": "function", "function": {"name": name, "arguments": arguments}}
        self._begin(fresh=False).setdefault("tool_calls", []).append(call)

    def _output(self, item: dict[str, Any], where: str) -> None:
        self._turn = None
        content = _content(item.get("output"), f"{where}.output")
        self.messages.append({"role": "tool", "tool_call_id": _required(item, "call_id", where), "content": content})

    def _begin(self, *, fresh: bool) -> dict[str, Any]:
        if self._turn is None or fresh:
            self._turn = {"role": "assistant", "content": ""}
            self.messages.append(self._turn)
        return self._turn


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{where} must be a text or a list of parts.", param=where)
    return [{"type": "text", "text": read_part(part, f"{where}[{index}]")} for index, part in enumerate(content)]


def _text(part: Any, where: str) -> str:
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str):
        raise RequestError(f"{where}.text must be a text.", param=f"{where}.text")
    return text


def _list(item: dict[str, Any], name: str, where: str) -> list[Any]:
    value = item.get(name)
    if value is not None and not isinstance(value, list):
        raise RequestError(f"{where}.{name} must be a list.", param=f"{where}.{name}")
    return value or []


def _required(item: dict[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise RequestError(f"{where}.{name} must be a text.", param=f"{where}.{name}")
    return value
