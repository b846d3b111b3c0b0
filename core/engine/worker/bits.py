"""Masks of allowed tokens as bits, 32 to a word, and what they do to logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def unpack(bits: NDArray[np.int32]) -> Tensor:
    """The tokens that the masks forbid, bool [rows, 32·words]."""
    return torch.from_numpy(np.unpackbits(~bits.view(np.uint8), axis=1, bitorder="little")).view(torch.bool)


def forbid(scores: Tensor, rows: list[int], bits: NDArray[np.int32], forbidden: Tensor | None = None) -> None:
    """−∞ where a row's bit is 0. scores [R, V] float; bits [len(rows), ⌈V/32⌉]; ``forbidden``: :func:`unpack` of them."""
    width = scores.shape[1]
    if scores.device.type == "cpu":
        outside = (unpack(bits) if forbidden is None else forbidden)[:, :width]
    else:
        words = torch.from_numpy(bits).to(scores.device, non_blocking=True)
        places = torch.arange(32, dtype=torch.int32, device=scores.device)
        outside = ~((words[:, :, None] >> places) & 1).bool().flatten(1)[:, :width]
    if len(rows) == scores.shape[0]:
        scores.masked_fill_(outside, -torch.inf)
        return
    index = torch.tensor(rows, device=scores.device)
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
