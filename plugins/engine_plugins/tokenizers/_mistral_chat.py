"""OpenAI messages to mistral-common's request."""

from __future__ import annotations

from typing import Any

from mistral_common.protocol.instruct.request import ChatCompletionRequest

from engine.errors import RequestError

#: Mistral's tool-call ids are this long; longer ones of other servers are cut to their end.
_ID_LENGTH = 9
_OWN = frozenset({"tools", "documents", "add_generation_prompt", "continue_final_message"})
_ROLES = {"developer": "system", "function": "tool"}
_TAKEN = frozenset({"reasoning_effort"})


def chat_request(messages: list[dict[str, Any]], options: dict[str, Any]) -> ChatCompletionRequest[Any]:
    """The request; ``options`` are those of :meth:`engine.plugin.Tokenizer.render_chat`. Raises RequestError."""
    unknown = sorted(set(options) - _OWN - _TAKEN)
    if unknown:
        raise RequestError(
            f"chat_template_kwargs {', '.join(unknown)}: --tokenizer-mode mistral encodes conversations without a template.",
            param="chat_template_kwargs", fix="leave them out, or start the server with --chat-template FILE",
        )  # fmt: skip
    if options.get("documents"):
        raise RequestError("documents: Mistral's chat format has no place for them.", param="documents", fix="put them in a message")
    prefix = bool(messages) and messages[-1]["role"] == "assistant"
    taken = {name: options[name] for name in _TAKEN if options.get(name) is not None}
    try:
        return ChatCompletionRequest.from_openai(
            [_message(message) for message in messages], tools=_tools(options.get("tools")), continue_final_message=prefix, **taken
        )
    except (ValueError, TypeError, LookupError) as error:
        raise refused(error) from error


def refused(error: Exception) -> RequestError:
    """The error of a conversation that mistral-common does not take."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return RequestError(f"messages: mistral-common refuses the conversation: {reason:.500}", param="messages")


def _message(message: dict[str, Any]) -> dict[str, Any]:
    found = {key: message[key] for key in ("content", "reasoning") if message.get(key) is not None}
    found["role"] = _ROLES.get(message["role"], message["role"])
    if found["role"] == "tool":
        found |= {key: message[key] for key in ("name", "tool_call_id") if message.get(key) is not None}
    if "tool_call_id" in found:
        found["tool_call_id"] = str(found["tool_call_id"])[-_ID_LENGTH:]
    if isinstance(found.get("content"), list):
        found["content"] = "\n".join(part["text"] for part in found["content"])
    if message.get("tool_calls"):
        found["tool_calls"] = [_call(call) for call in message["tool_calls"]]
    return found


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = {key: call["function"][key] for key in ("name", "arguments")}
    named = {"id": str(call["id"])[-_ID_LENGTH:]} if call.get("id") else {}
    return {"type": "function", "function": function, **named}


def _tools(tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """mistral-common wants ``parameters`` even where a function takes none."""
    if not tools:
        return None
    return [{**tool, "function": {**tool["function"], "parameters": tool["function"].get("parameters") or {}}} for tool in tools]
