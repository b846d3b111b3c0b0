"""Messages and their content blocks in the form that chat has."""

from __future__ import annotations

import json
from typing import Any

from engine.errors import RequestError
from engine.render.messages import MAX_MESSAGES

#: The line that some clients put first and change with every request: accounting, no instruction. Left in, no two prompts would share
#: a beginning, and nothing of the conversation would come from the prefix cache.
BILLING = "x-anthropic-billing-header:"
_ROLES = ("user", "assistant", "system")

Message = dict[str, Any]


def read_messages(messages: list[Any], system: str | list[Any] | None) -> list[Message]:
    """Chat messages: the system prompt first, system messages further on in their place. Raises RequestError naming the block."""
    if not messages:
        raise RequestError("messages cannot be empty; give at least one message.", param="messages")
    if len(messages) > MAX_MESSAGES:
        raise RequestError(f"messages cannot have {len(messages)} entries; allowed: at most {MAX_MESSAGES}.", param="messages")
    found = _system(system)
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            raise RequestError(f"{where}.role cannot be {str(role)[:60]!r}; allowed: {', '.join(_ROLES)}.", param=f"{where}.role")
        blocks = _blocks(message.get("content"), f"{where}.content")
        if role == "assistant":
            _join(found, _assistant(blocks))
        else:
            for each in _given(role, blocks):
                _join(found, each)
    return found


def continues(messages: list[Message]) -> bool:
    """Whether the last message is the beginning of the answer."""
    last = messages[-1]
    return last["role"] == "assistant" and bool(last["content"]) and "tool_calls" not in last


def _system(system: str | list[Any] | None) -> list[Message]:
    texts = [_text(block, where) for block, where in _blocks(system or "", "system")]
    if texts and texts[0].startswith(BILLING):
        texts[0] = texts[0].partition("\n")[2].lstrip("\n")
    texts = [text for text in texts if text]
    return [{"role": "system", "content": _parts(texts)}] if texts else []


def _blocks(content: Any, where: str) -> list[tuple[dict[str, Any], str]]:
    """Blocks, each with its place."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, where)]
    if not isinstance(content, list):
        raise RequestError(f"{where} must be a text or a list of blocks.", param=where)
    for index, block in enumerate(content):
        if not isinstance(block, dict):
            raise RequestError(f"{where}[{index}] must be an object.", param=f"{where}[{index}]")
    return [(block, f"{where}[{index}]") for index, block in enumerate(content)]


def _given(role: str, blocks: list[tuple[dict[str, Any], str]]) -> list[Message]:
    """A user's or system message: results of tools are messages of their own, in order."""
    messages: list[Message] = []
    for block, where in blocks:
        if block.get("type") == "tool_result" and role == "user":
            texts = [_text(part, place) for part, place in _blocks(block.get("content") or "", f"{where}.content")]
            if block.get("is_error") and not any(texts):
                texts = ["error"]
            identifier = _required(block, "tool_use_id", where)
            messages.append({"role": "tool", "tool_call_id": identifier, "content": _parts(texts)})
        else:
            _join(messages, {"role": role, "content": _parts([_text(block, where)])})
    return messages or [{"role": role, "content": ""}]


def _assistant(blocks: list[tuple[dict[str, Any], str]]) -> Message:
    texts, thoughts, calls = [], [], []
    for block, where in blocks:
        kind = block.get("type")
        if kind == "thinking":
            thoughts.append(_required(block, "thinking", where, empty=True))
        elif kind == "tool_use":
            calls.append(_call(block, where))
        elif kind != "redacted_thinking":
            texts.append(_text(block, where))
    message: Message = {"role": "assistant", "content": _parts([text for text in texts if text])}
    if any(thoughts):
        message["reasoning"] = "\n".join(thought for thought in thoughts if thought)
    if calls:
        message["tool_calls"] = calls
    return message


def _call(block: dict[str, Any], where: str) -> dict[str, Any]:
    given = block.get("input")
    if not isinstance(given, dict):
        raise RequestError(f"{where}.input must be an object.", param=f"{where}.input")
    function = {"name": _required(block, "name", where), "arguments": json.dumps(given, ensure_ascii=False)}
    return {"id": _required(block, "id", where), "type": "function", "function": function}


def _join(messages: list[Message], message: Message) -> None:
    """Add a message; neighbours of one role are one turn, as this API has it. Thoughts and calls begin a turn of their own."""
    last = messages[-1] if messages else None
    plain = last is not None and last["role"] == message["role"] and message["role"] in ("user", "assistant")
    if last is None or not plain or "tool_calls" in last or "reasoning" in message:
        messages.append(message)
        return
    last["content"] = _parts([*_texts(last["content"]), *_texts(message["content"])])
    if "tool_calls" in message:
        last["tool_calls"] = message["tool_calls"]


def _texts(content: str | list[dict[str, str]]) -> list[str]:
    if isinstance(content, str):
        return [content] if content else []
    return [part["text"] for part in content]


def _parts(texts: list[str]) -> str | list[dict[str, str]]:
    """One text as it is; several as parts, which templates without parts see as lines."""
    if len(texts) < 2:
        return "".join(texts)
    return [{"type": "text", "text": text} for text in texts]


def _text(block: dict[str, Any], where: str) -> str:
    kind = block.get("type")
    if kind == "text":
        return _required(block, "text", where, empty=True)
    source = block.get("source")
    if kind == "document" and isinstance(source, dict) and source.get("type") == "text":
        return _required(source, "data", f"{where}.source", empty=True)
    raise RequestError(f"{where}.type cannot be {str(kind)[:60]!r} here: this model reads text only.", param=f"{where}.type")


def _required(block: dict[str, Any], name: str, where: str, *, empty: bool = False) -> str:
    value = block.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise RequestError(f"{where}.{name} must be a text.", param=f"{where}.{name}")
    return value
