"""What this version does not serve, refused by the field's name; and the fields that need each other."""

from __future__ import annotations

import hashlib
from typing import Any

from engine.errors import RequestError
from engine.server.identity import clean_id
from engine.server.openai.protocol import ChatBody, CompletionBody, GenerationBody

MAX_SALT = 1024
#: Fields of features that this version does not have.
ABSENT = ("use_beam_search",)


def check_generation(body: GenerationBody) -> None:
    """Checks of completions and chat alike."""
    for name in ABSENT:
        if getattr(body, name) not in (None, False, [], {}):
            raise _absent(name)
    if body.request_id is not None and clean_id(body.request_id) is None:
        cause = "request_id cannot hold other characters than letters, digits and ._:@/+=-, nor more than 128."
        raise RequestError(cause, param="request_id")
    if body.length_penalty not in (None, 1.0):
        raise _absent("length_penalty", "it belongs to beam search")
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options needs stream to be true.", param="stream_options")
    if body.stream and body.prompt_logprobs is not None:
        raise RequestError("prompt_logprobs cannot be streamed.", param="prompt_logprobs")
    if body.stream and body.best_of is not None and body.best_of != (body.n or 1):
        raise RequestError("best_of must equal n in a stream.", param="best_of")


def check_completion(body: CompletionBody) -> None:
    """Checks of completions."""
    check_generation(body)
    if body.prompt is None:
        raise RequestError("prompt is required.", param="prompt")
    if body.suffix:
        raise _absent("suffix", "filling in the middle")
    if body.max_tokens == 0 and not body.echo:
        raise RequestError("max_tokens can be 0 with echo only; allowed: at least 1.", param="max_tokens")


def check_chat(body: ChatBody) -> None:
    """Checks of chat."""
    check_generation(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true.", param="top_logprobs")
    if body.mm_processor_kwargs:
        raise _absent("mm_processor_kwargs", "media")
    check_tools(body.tools)


def check_tools(tools: list[Any] | None) -> None:
    """Tools are objects with a named function."""
    for index, tool in enumerate(tools or ()):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise RequestError(f"tools[{index}] must be a function with a name.", param=f"tools[{index}]")


def salted(salt: str | None) -> str | None:
    """A cache salt of fixed length, whatever the client sent."""
    if salt is None:
        return None
    if not 1 <= len(salt) <= MAX_SALT:
        raise RequestError(f"cache_salt cannot have {len(salt)} characters; allowed: 1 to {MAX_SALT}.", param="cache_salt")
    return hashlib.sha256(salt.encode("utf-8", "surrogatepass")).hexdigest()


def _absent(name: str, what: str | None = None) -> RequestError:
    return RequestError(f"{name} is not available in this version{f' ({what})' if what else ''}.", param=name, code="not_available")
