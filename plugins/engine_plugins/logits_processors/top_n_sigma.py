"""Only tokens near the best logit: argument ``n``, the largest distance in standard deviations of all logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import LogitsProcessor, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class TopNSigma(LogitsProcessor):
    """Keeps what is at most n standard deviations below the best. Unlike top-p it keeps the same tokens at every temperature."""

    def validate(self, arguments: dict[str, Any]) -> str | None:
        """``n`` above 0."""
        unknown = arguments.keys() - {"n"}
        if unknown:
            return f"it has no argument {sorted(unknown)[0]!r}; it has: n"
        n = arguments.get("n")
        if not isinstance(n, int | float) or isinstance(n, bool) or not (math.isfinite(n) and n > 0):
            return f"n must be a number above 0, not {n!r}"
        return None

    def apply(self, logits: Tensor, prompt: Sequence[int], output: Sequence[int], arguments: dict[str, Any]) -> Tensor:
        """See the contract; works in place. Tokens that are forbidden already do not count."""
        import torch

        allowed = logits[torch.isfinite(logits)]
        if allowed.numel() < 2:
            return logits
        least = allowed.max() - arguments["n"] * allowed.std(correction=0)
        return logits.masked_fill_(logits < least, -torch.inf)


@hookimpl
def engine_create_logits_processor(options: Any) -> LogitsProcessor:
    """The processor ``top_n_sigma``."""
    return TopNSigma()
