"""The forms in which people write prompts, offline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from engine.errors import ConfigError, RequestError

#: A text, token ids, or ``{"prompt": …}`` / ``{"prompt_token_ids": […]}``.
PromptLike = str | list[int] | dict[str, Any]
_FORMS = 'a text, a list of token ids, {"prompt": text} or {"prompt_token_ids": […]}'


def prompt_list(prompts: PromptLike | Sequence[PromptLike]) -> list[PromptLike]:
    """One prompt or several, as a list. Raises RequestError for what is neither."""
    if isinstance(prompts, str | dict):
        return [prompts]
    if not isinstance(prompts, Iterable):
        raise _no_prompt(prompts)
    found = list(prompts)
    if found and hasattr(found[0], "__index__"):
        return [found]  # type: ignore[list-item]  # a list of ints is one prompt
    return found  # type: ignore[return-value]  # and anything else a list of prompts


def split_prompt(prompt: PromptLike) -> tuple[str | None, str | list[int]]:
    """The prompt's text, where it has one, and what is to be encoded. Raises RequestError, for unknown keys ConfigError."""
    if isinstance(prompt, str):
        return prompt, prompt
    if not isinstance(prompt, dict):
        return None, _token_ids(prompt)
    unknown = sorted(map(str, set(prompt) - {"prompt", "prompt_token_ids"}))
    if unknown or not prompt:
        raise ConfigError(f"a prompt has no key {', '.join(unknown) or 'at all'}.", fix='{"prompt": …} or {"prompt_token_ids": […]}')
    text = prompt.get("prompt")
    if not isinstance(text, str) and (text is not None or "prompt_token_ids" not in prompt):
        raise _no_prompt(text)
    return text, _token_ids(prompt["prompt_token_ids"]) if "prompt_token_ids" in prompt else text or ""


def _token_ids(value: Any) -> list[int]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise _no_prompt(value)
    try:
        return [index(token) for token in value]
    except TypeError as error:
        raise RequestError(f"prompt_token_ids must be whole numbers: {error}.", param="prompt") from error


def _no_prompt(value: object) -> RequestError:
    return RequestError(f"a prompt cannot be of type {type(value).__name__}; it is {_FORMS}.", param="prompt")
