"""Q8_0 and Q4_0 blocks as ggml's reference rounds them (block layouts and rounding: ggml's ggml-quants.c, gguf-py's quants)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from engine.layers.packed_blocks import BlockKind, RowBlocks
from engine.layers.packed_rounding import row_slices

#: Elements of a block.
BLOCK = 32


def blocks_of(kind: str, weight: Tensor) -> RowBlocks:
    """Floats [outputs, inputs], inputs a multiple of 32, as rows of blocks."""
    bits, round_blocks, unpack = _TYPES[kind]
    outputs, inputs = weight.shape
    nbytes = 2 + BLOCK * bits // 8
    raw = torch.empty(outputs, inputs // BLOCK * nbytes, dtype=torch.uint8)
    for rows in row_slices(outputs, inputs):
        integers, steps = round_blocks(weight[rows].float().reshape(-1, BLOCK))
        stored = integers.view(torch.uint8) if bits == 8 else _nibbles(integers)
        blocks = torch.cat((steps.to(torch.float16).view(torch.uint8), stored), 1)
        raw[rows] = blocks.view(-1, raw.shape[1])
    return RowBlocks(raw, BlockKind(kind.lower(), BLOCK, nbytes, unpack), inputs=inputs)


def _eight(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """A step is a 127th of the largest magnitude; halves are rounded away from zero."""
    step = blocks.abs().amax(1, keepdim=True) / 127
    scaled = blocks * _inverse(step)
    whole = scaled.abs().floor()
    rounded = whole + (2 * (scaled.abs() - whole)).floor()
    return (scaled.sign() * rounded).to(torch.int8), step


def _four(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The value of largest magnitude becomes -8, whatever its sign; the other end is cut off at 7."""
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    step = largest / -8
    return ((blocks * _inverse(step) + 8.5).trunc().clamp(0, 15) - 8).to(torch.int8), step


def _inverse(step: Tensor) -> Tensor:
    return torch.where(step == 0, torch.zeros_like(step), 1 / step)


def _nibbles(values: Tensor) -> Tensor:
    """Of each block the first half in the low halves of bytes, the second in the high ones."""
    unsigned = (values + 8).to(torch.uint8).view(-1, 2, BLOCK // 2)
    return unsigned[:, 0] | (unsigned[:, 1] << 4)


def _unpack_eight(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float() * _steps(blocks)


def _unpack_four(blocks: Tensor) -> Tensor:
    return (torch.cat((blocks[:, 2:] & 15, blocks[:, 2:] >> 4), 1).float() - 8) * _steps(blocks)


def _steps(blocks: Tensor) -> Tensor:
    return blocks[:, :2].contiguous().view(torch.float16).float()


class _Type(NamedTuple):
    bits: int
    round: Callable[[Tensor], tuple[Tensor, Tensor]]
    unpack: Callable[[Tensor], Tensor]


_TYPES = {"Q8_0": _Type(8, _eight, _unpack_eight), "Q4_0": _Type(4, _four, _unpack_four)}
