"""Masks of allowed tokens as bits, 32 to a word, and what they do to logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from engine.plugin.contracts.operations import GrammarSteps


#: Why a row whose mask is empty cannot be sampled.
NOTHING = "guided decoding failed: the grammar allows no token here"


@dataclass(frozen=True, slots=True, eq=False)
class GrammarMasks:
    """Bit masks of some rows: ``rows[i]`` of the logits allows what ``bits[i]`` says; ``errors`` by row.

    ``steps`` have to be done before: they write ``bits``, and then ``settle`` has the rest of the errors, by row.
    """

    rows: NDArray[np.int64]
    bits: NDArray[np.int32]
    errors: dict[int, str]
    steps: GrammarSteps | None = None
    settle: Callable[[], dict[int, str]] | None = None

    def failed(self) -> dict[int, str]:
        """All errors, when the steps have been done."""
        return self.errors | self.settle() if self.settle is not None else self.errors

    def empty(self) -> dict[int, str]:
        """The rows whose masks allow nothing, each with what to say of it."""
        return {int(self.rows[i]): NOTHING for i in np.flatnonzero(self.bits.view(np.uint32).max(1, initial=0) == 0).tolist()}


def forbid(scores: Tensor, rows: NDArray[np.int64], bits: NDArray[np.int32]) -> None:
    """−∞ where a row's bit is 0. scores [R, V] float; bits [len(rows), ⌈V/32⌉], one mask per named row."""
    width = scores.shape[1]
    if scores.device.type == "cpu":
        outside = torch.from_numpy(np.unpackbits(~bits.view(np.uint8), axis=1, bitorder="little")).view(torch.bool)[:, :width]
    else:
        words = torch.from_numpy(bits).to(scores.device, non_blocking=True)
        places = torch.arange(32, dtype=torch.int32, device=scores.device)
        outside = ~((words[:, :, None] >> places) & 1).bool().flatten(1)[:, :width]
    if len(rows) == scores.shape[0]:
        scores.masked_fill_(outside, -torch.inf)
        return
    index = torch.from_numpy(rows).to(scores.device)
    scores[index] = scores[index].masked_fill_(outside, -torch.inf)


def has(bits: NDArray[np.int32], token: int) -> bool:
    """Whether the mask of one row allows the token."""
    return bool(int(bits[token >> 5]) >> (token & 31) & 1)


def allow(bits: NDArray[np.int32], tokens: tuple[int, ...]) -> None:
    """Set the bits of these tokens in the mask of one row; those beyond it are passed over."""
    words = bits.view(np.uint32)
    for token in tokens:
        if token >> 5 < len(words):
            words[token >> 5] |= np.uint32(1 << (token & 31))


def rows_with(bits: NDArray[np.int32], token: int) -> list[int]:
    """The rows whose masks allow the token."""
    found: list[int] = np.flatnonzero(bits[:, token >> 5] >> (token & 31) & 1).tolist()
    return found
