"""No n-gram of tokens comes twice: arguments ``size``, and ``prompt`` (whether the prompt's count; true)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import LogitsProcessor, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1
LARGEST = 1024


class NoRepeatNgram(LogitsProcessor):
    """Forbids every token that would complete an n-gram which the text already has."""

    def validate(self, arguments: dict[str, Any]) -> str | None:
        """``size`` from 1 to 1024, ``prompt`` a boolean."""
        unknown = arguments.keys() - {"size", "prompt"}
        if unknown:
            return f"it has no argument {sorted(unknown)[0]!r}; it has: size, prompt"
        size = arguments.get("size")
        if type(size) is not int or not 1 <= size <= LARGEST:
            return f"size must be a whole number from 1 to {LARGEST}, not {size!r}"
        if not isinstance(arguments.get("prompt", True), bool):
            return "prompt must be true or false"
        return None

    def apply(self, logits: Tensor, prompt: Sequence[int], output: Sequence[int], arguments: dict[str, Any]) -> Tensor:
        """See the contract; works in place, in time linear in the text."""
        import numpy as np
        import torch

        before = arguments["size"] - 1
        tokens = np.array([*prompt, *output] if arguments.get("prompt", True) else output, dtype=np.int64)
        starts = len(tokens) - before
        if starts < 1:
            return logits
        same = np.ones(starts, dtype=bool)
        for place in range(before):
            same &= tokens[place : place + starts] == tokens[starts + place]
        follow = tokens[before:][same]
        logits[torch.from_numpy(np.unique(follow[follow < logits.shape[0]])).to(logits.device)] = -torch.inf
        return logits


@hookimpl
def engine_create_logits_processor(options: Any) -> LogitsProcessor:
    """The processor ``no_repeat_ngram``."""
    return NoRepeatNgram()
