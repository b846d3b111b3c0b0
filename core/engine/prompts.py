"""The forms in which people write prompts, offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import ConfigError

#: A text, token ids, or ``{"prompt": …}`` / ``{"prompt_token_ids": […]}``.
PromptLike = str | list[int] | dict[str, Any]


def prompt_list(prompts: PromptLike | Sequence[PromptLike]) -> list[PromptLike]:
    """One prompt or several, as a list."""
    if isinstance(prompts, str | dict) or (prompts and isinstance(prompts[0], int)):
        return [prompts]  # type: ignore[list-item]  # a list of ints is one prompt
    return list(prompts)  # type: ignore[arg-type]  # and anything else a list of prompts


def split_prompt(prompt: PromptLike) -> tuple[str | None, str | list[int]]:
    """The prompt's text, where it has one, and what is to be encoded."""
    if isinstance(prompt, dict):
        unknown = sorted(set(prompt) - {"prompt", "prompt_token_ids"})
        if unknown or not prompt:
            raise ConfigError(f"a prompt has no key {', '.join(unknown) or 'at all'}.", fix='{"prompt": …} or {"prompt_token_ids": […]}')
        if "prompt_token_ids" in prompt:
            return prompt.get("prompt"), list(prompt["prompt_token_ids"])
        return prompt["prompt"], prompt["prompt"]
    return (prompt, prompt) if isinstance(prompt, str) else (None, list(prompt))
