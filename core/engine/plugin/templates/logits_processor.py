"""Adds a number to the logits of some tokens; a logits processor named example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import LogitsProcessor, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1
CONFORMANCE = "example_conformance:TestExample"


class Boost(LogitsProcessor):
    """Arguments: ``tokens``, a list of ids, and ``by``, a number."""

    def validate(self, arguments: dict[str, Any]) -> str | None:
        unknown = arguments.keys() - {"tokens", "by"}
        if unknown:
            return f"it has no argument {sorted(unknown)[0]!r}; it has: tokens, by"
        tokens, by = arguments.get("tokens"), arguments.get("by")
        if not isinstance(tokens, list) or not all(isinstance(token, int) and token >= 0 for token in tokens):
            return f"tokens must be a list of token ids, not {tokens!r}"
        if not isinstance(by, int | float) or isinstance(by, bool) or not abs(by) <= 100:
            return f"by must be a number from -100 to 100, not {by!r}"
        return None

    def apply(self, logits: Tensor, prompt: Sequence[int], output: Sequence[int], arguments: dict[str, Any]) -> Tensor:
        logits[[token for token in arguments["tokens"] if token < len(logits)]] += arguments["by"]
        return logits


@hookimpl
def engine_create_logits_processor() -> LogitsProcessor:
    return Boost()
