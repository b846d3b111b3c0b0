"""What the offline API returns: one record per prompt, one per choice, in the shape people know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.assemble.tokens import TokenTexts
    from engine.plugin.step import TokenLogprobs


@dataclass(frozen=True, slots=True)
class Logprob:
    """Natural-log probability of one token at one position, its rank there (1 = most likely; None beyond the asked ones) and its text."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass(frozen=True, slots=True)
class CompletionOutput:
    """One choice. ``logprobs``: per token, the chosen token's and the most likely ones' by token id.

    ``token_ids`` includes the token that ended the output; ``text`` does not. ``cumulative_logprob`` needs ``logprobs``.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One prompt's answer. ``prompt_logprobs``: per prompt token, the first None, if asked for."""

    request_id: str
    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: list[CompletionOutput] = field(default_factory=list)
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    num_cached_tokens: int = 0
    finished: bool = True


def name_logprobs(entry: TokenLogprobs, texts: TokenTexts) -> dict[int, Logprob]:
    """One position's log-probabilities by token id: the most likely first, the chosen token always among them."""
    named = {
        token: Logprob(value, rank, texts.text(token))
        for rank, (token, value) in enumerate(zip(entry.top_ids, entry.top_logprobs, strict=True), 1)
    }
    named[entry.token_id] = Logprob(entry.logprob, entry.rank, texts.text(entry.token_id))
    return named
