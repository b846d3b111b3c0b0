"""Tokens that a request forbids, biases or has processed: changes to single rows of logits, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch

from engine.worker.sequences import Sequence

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.contracts.generation import LogitsProcessor


class Guides(Protocol):
    """Grammar masks of guided sequences."""

    def mask(self, logits: Tensor, sequence: Sequence, length: int) -> None:
        """Set the logits [V] of tokens that the grammar does not allow after ``length`` tokens to −∞, in place."""


class RowError(Exception):
    """One row cannot be sampled; its sequence fails, others go on."""


class Masks:
    """Applies, in this order: grammar, logits processors, logit_bias, allowed_token_ids, bad words, min_tokens."""

    def __init__(self, processor: Callable[[str], LogitsProcessor], guides: Guides | None = None) -> None:
        self._processor = processor
        self._guides = guides

    def apply(self, logits: Tensor, sequence: Sequence, length: int) -> None:
        """Change one row of float32 logits [V] in place; raises :class:`RowError`."""
        p = sequence.params
        if p.guide is not None:
            if self._guides is None:
                raise RowError(f"guided decoding ({p.guide.kind}) is not available in this engine")
            self._guides.mask(logits, sequence, length)
        if p.logits_processors:
            self._process(logits, sequence, length)
        if p.logit_bias:
            ids = _ids(p.logit_bias, logits, "logit_bias")
            logits[ids] += torch.tensor(list(p.logit_bias.values()), dtype=logits.dtype, device=logits.device)
        if p.allowed_token_ids is not None:
            ids = _ids(p.allowed_token_ids, logits, "allowed_token_ids")
            kept = logits[ids]
            logits.fill_(-torch.inf)
            logits[ids] = kept
        if p.bad_words_ids:
            _forbid_words(logits, sequence, length)
        if length - sequence.num_prompt < p.min_tokens:
            ends = (*p.stop_token_ids, *(() if p.ignore_eos else sequence.eos))
            if ends:
                logits[_ids(ends, logits, "stop_token_ids")] = -torch.inf

    def _process(self, logits: Tensor, sequence: Sequence, length: int) -> None:
        prompt = sequence.tokens[: sequence.num_prompt].tolist()
        output = sequence.tokens[sequence.num_prompt : length].tolist()
        for name, arguments in sequence.params.logits_processors:
            try:
                changed = self._processor(name).apply(logits, prompt, output, arguments)
                logits.copy_(changed)
            except Exception as error:
                raise RowError(f"logits processor {name!r} failed: {type(error).__name__}: {error}") from error


def _ids(token_ids: object, logits: Tensor, field: str) -> Tensor:
    """Token ids as an index; ids beyond the logits are the request's error."""
    ids = torch.tensor(list(token_ids), dtype=torch.int64)  # type: ignore[call-overload]
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < logits.shape[0]:
        raise RowError(f"{field} has a token id outside 0 … {logits.shape[0] - 1}")
    return ids.to(logits.device)


def _forbid_words(logits: Tensor, sequence: Sequence, length: int) -> None:
    """−∞ for the last token of each bad word whose other tokens end the output so far."""
    output = sequence.tokens[sequence.num_prompt : length]
    forbidden = []
    for word in sequence.params.bad_words_ids:
        before = len(word) - 1
        if before < 0 or before > len(output):
            continue
        if before == 0 or tuple(output[len(output) - before :].tolist()) == word[:-1]:
            forbidden.append(word[-1])
    if forbidden:
        logits[_ids(forbidden, logits, "bad_words")] = -torch.inf
