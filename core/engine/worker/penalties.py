"""Repetition, presence and frequency penalties, over the tokens that each sequence has seen."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from engine.worker.sequences import Sequence

if TYPE_CHECKING:
    from torch import Tensor


class TokenCounts:
    """The distinct tokens of one sequence and how often each was output; kept up to date in time linear in the new
    tokens."""

    def __init__(self, sequence: Sequence) -> None:
        prompt = np.unique(sequence.tokens[: sequence.num_prompt])
        self._index = {int(token): i for i, token in enumerate(prompt)}
        self._ids = prompt.astype(np.int64)
        self._counts = np.zeros(len(prompt), np.int64)
        self._used = len(prompt)
        self._upto = sequence.num_prompt

    def at(self, sequence: Sequence, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(distinct tokens, output count of each) of the first ``length`` tokens, drafts included."""
        committed = min(length, sequence.length)
        for token in sequence.tokens[self._upto : committed]:
            self._count(int(token))
        self._upto = max(self._upto, committed)
        if length <= self._upto:
            return self._ids[: self._used], self._counts[: self._used]
        ids = np.concatenate((self._ids[: self._used], sequence.tokens[self._upto : length].astype(np.int64)))
        weights = np.concatenate((self._counts[: self._used], np.ones(length - self._upto, np.int64)))
        distinct, inverse = np.unique(ids, return_inverse=True)
        return distinct, np.bincount(inverse, weights=weights).astype(np.int64)

    def _count(self, token: int) -> None:
        place = self._index.setdefault(token, self._used)
        if place == self._used:
            if place == len(self._ids):
                self._ids = np.concatenate((self._ids, np.zeros(max(64, place), np.int64)))
                self._counts = np.concatenate((self._counts, np.zeros(max(64, place), np.int64)))
            self._ids[place] = token
            self._used += 1
        self._counts[place] += 1


def apply_penalties(logits: Tensor, rows: Rows[tuple[int, Sequence, int]]) -> None:
    """Change float32 ``logits`` [R, V] in place, for (row, sequence, context length) triples.

    Repetition (Keskar et al. 2019, CTRL): a token of prompt or output has its positive logit divided, its negative one
    multiplied by the penalty. Frequency is subtracted once per occurrence in the output, presence once if there is any.
    """
    parts = []
    for row, sequence, length in rows:
        if sequence.counts is None:
            sequence.counts = TokenCounts(sequence)
        ids, counts = sequence.counts.at(sequence, length)
        known = ids < logits.shape[1]  # A prompt may hold ids that the model reads but never gives.
        ids, counts = ids[known], counts[known]
        parts.append((row, ids, counts, sequence.params))
    sizes = [len(ids) for _, ids, _, _ in parts]

    def spread(values: list[float]) -> Tensor:
        return torch.from_numpy(np.repeat(np.asarray(values, np.float32), sizes)).to(logits.device)

    index = torch.from_numpy(np.repeat(np.asarray([row for row, *_ in parts], np.int64), sizes)).to(logits.device)
    tokens = torch.from_numpy(np.concatenate([ids for _, ids, _, _ in parts])).to(logits.device)
    seen = torch.from_numpy(np.concatenate([counts for _, _, counts, _ in parts])).to(logits.device)
    values = logits[index, tokens]
    repetition = spread([p.repetition_penalty for *_, p in parts])
    values = torch.where(values > 0, values / repetition, values * repetition)
    values -= seen * spread([p.frequency_penalty for *_, p in parts])
    values -= (seen > 0) * spread([p.presence_penalty for *_, p in parts])
    logits[index, tokens] = values
