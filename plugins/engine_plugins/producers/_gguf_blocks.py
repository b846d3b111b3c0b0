"""Q8_0 and Q4_0 blocks as ggml's reference rounds them (block layouts and rounding: ggml's ggml-quants.c, gguf-py's quants)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from engine.layers.packed_integer import GroupedInteger
from engine.layers.packed_rounding import row_slices

#: Elements of a block.
BLOCK = 32


class Blocks(NamedTuple):
    """``rows``: uint8 [outputs, row bytes] as the file has them; ``meaning``: the weight that they are."""

    rows: Tensor
    meaning: GroupedInteger


def blocks_of(kind: str, weight: Tensor) -> Blocks:
    """Floats [outputs, inputs], inputs a multiple of 32, as blocks."""
    bits, round_blocks = _ROUNDINGS[kind]
    outputs, inputs = weight.shape
    groups = inputs // BLOCK
    values = torch.empty(outputs, inputs, dtype=torch.int8)
    scale = torch.empty(outputs, groups, dtype=torch.float16)
    for rows in row_slices(outputs, inputs):
        integers, steps = round_blocks(weight[rows].float().view(-1, BLOCK))
        values[rows], scale[rows] = integers.view(-1, inputs), steps.to(torch.float16).view(-1, groups)
    stored = values.view(torch.uint8) if bits == 8 else _nibbles(values)
    raw = torch.cat((scale.view(torch.uint8).view(outputs, groups, 2), stored.view(outputs, groups, -1)), 2).flatten(1)
    return Blocks(raw, GroupedInteger.of(values, scale, bits=bits, group=BLOCK))


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


_ROUNDINGS: dict[str, tuple[int, Callable[[Tensor], tuple[Tensor, Tensor]]]] = {"Q8_0": (8, _eight), "Q4_0": (4, _four)}
