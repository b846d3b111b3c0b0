"""Tokens that a request forbids, biases or has processed: changes to single rows of logits, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engine.worker.bits import GrammarMasks, forbid
from engine.worker.processors import Processing
from engine.worker.processors import RowError as RowError
from engine.worker.sequences import Sequence
from engine.worker.thinking import forced_token

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.contracts.generation import LogitsProcessor
    from engine.plugin.contracts.operations import Operations


REFUSED = "guided decoding is not available in this engine"


class Guides(Protocol):
    """Grammar masks of guided sequences, worked out while the model ran (:class:`engine.worker.guides.Grammars`)."""

    def take(self) -> GrammarMasks | None:
        """The masks of this step's rows; None where no row is guided."""

    def lead(self, tokens: NDArray[np.int64]) -> None:
        """The rows' tokens, of which none failed: the masks after them may be begun."""


class Masks:
    """Applies, in this order: grammars, logits processors, logit_bias, allowed_token_ids, bad words, min_tokens, thinking budget."""

    def __init__(self, processor: Callable[[str], LogitsProcessor], guides: Guides | None = None) -> None:
        self._processor = processor
        self._guides = guides

    def take_grammars(self, sequences: Rows[Sequence]) -> GrammarMasks:
        """The masks of the guided rows, perhaps with steps to do before. All rows are refused where there are no grammars."""
        masks = self._guides.take() if self._guides is not None else None
        if masks is not None:
            return masks
        errors = {} if self._guides is not None else {row: REFUSED for row, sequence in enumerate(sequences) if sequence.guided}
        return GrammarMasks(np.empty(0, np.int64), np.empty((0, 1), np.int32), errors)

    def lead(self, tokens: NDArray[np.int64]) -> None:
        """Tell the grammars which token each row of the step has got, where none failed."""
        if self._guides is not None:
            self._guides.lead(tokens)

    def apply_grammars(self, scores: Tensor, sequences: Rows[Sequence], ops: Operations) -> dict[int, str]:
        """Change the guided rows of scores [R, V] in place; errors by row."""
        masks = self.take_grammars(sequences)
        if masks.steps is not None:
            ops.step_grammars(masks.steps)
        if len(masks.rows) and ops.restrict(scores, masks.rows, masks.bits) is None:
            forbid(scores, masks.rows, masks.bits)
        return masks.empty() | masks.failed()

    def apply(self, logits: Tensor, sequence: Sequence, length: int) -> None:
        """Change one row of float32 logits [V] in place; raises :class:`RowError`."""
        p = sequence.params
        if p.logits_processors:
            if sequence.processing is None:
                sequence.processing = Processing(sequence, self._processor)
            sequence.processing.apply(logits, sequence, length)
        if p.logit_bias:
            bias = _fixed(sequence, "logit_bias values", list(p.logit_bias.values()), logits).to(logits.dtype)
            logits.index_add_(0, _inside(sequence, "logit_bias", tuple(p.logit_bias), logits), bias)
        if p.allowed_token_ids is not None:
            ids = _inside(sequence, "allowed_token_ids", p.allowed_token_ids, logits)
            kept = logits[ids]
            logits.fill_(-torch.inf)
            logits[ids] = kept
        if p.bad_words_ids:
            _forbid(logits, _completed_words(sequence, length))
        if length - sequence.num_prompt < p.min_tokens:
            _postpone_end(logits, sequence)
        forced = forced_token(p.thinking, sequence, length) if p.thinking is not None else None
        if forced is not None and forced < logits.shape[0]:
            logits.fill_(-torch.inf)
            logits[forced] = 0.0


def _postpone_end(logits: Tensor, sequence: Sequence) -> None:
    """Forbid what would end the output, but where a grammar allows nothing else: its text cannot be any longer."""
    p = sequence.params
    ends = [token for token in (*p.stop_token_ids, *(() if p.ignore_eos else sequence.eos)) if 0 <= token < logits.shape[0]]
    kept = logits[ends] if sequence.guided else None
    _forbid(logits, ends)
    if kept is not None and not bool(torch.isfinite(logits).any()):
        logits[ends] = kept


def _fixed(sequence: Sequence, name: str, values: Rows[float], logits: Tensor) -> Tensor:
    """A request's list as a tensor on the device, made once: it may have as many entries as the vocabulary."""
    if name not in sequence.fixed:
        sequence.fixed[name] = torch.tensor(values).to(logits.device)
    return sequence.fixed[name]


def _inside(sequence: Sequence, field: str, token_ids: tuple[int, ...], logits: Tensor) -> Tensor:
    """Token ids as an index; ids beyond the logits are the request's error."""
    width = logits.shape[0]
    if field not in sequence.fixed and not all(0 <= token < width for token in token_ids):
        raise RowError(f"{field} has a token id outside 0 … {width - 1}")
    return _fixed(sequence, field, token_ids, logits).long()


def _forbid(logits: Tensor, token_ids: list[int]) -> None:
    """−∞ for these tokens; ids beyond the logits cannot come anyway."""
    inside = [token for token in token_ids if 0 <= token < logits.shape[0]]
    if inside:
        logits[torch.tensor(inside, device=logits.device)] = -torch.inf


def _completed_words(sequence: Sequence, length: int) -> list[int]:
    """The last token of each bad word whose other tokens end the output so far."""
    output = sequence.tokens[sequence.num_prompt : length]
    forbidden = []
    for word in sequence.params.bad_words_ids:
        before = len(word) - 1
        if before < 0 or before > len(output):
            continue
        if before == 0 or tuple(output[len(output) - before :].tolist()) == word[:-1]:
            forbidden.append(word[-1])
    return forbidden
