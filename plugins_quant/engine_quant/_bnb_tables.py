"""The 4-bit tables of bitsandbytes, and its 8-bit table for scales."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Type → value of each code. nf4: quantiles of a normal distribution with 0 and ±1; fp4: sign, 2 exponent bits, 1 mantissa bit over 12.
TABLES: dict[str, tuple[float, ...]] = {
    "nf4": (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
        -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
    "fp4": (
        0.0, 0.005208333333, 0.66666667, 1.0, 0.33333333, 0.5, 0.16666667, 0.25,
        -0.0, -0.005208333333, -0.66666667, -1.0, -0.33333333, -0.5, -0.16666667, -0.25,
    ),
}  # fmt: skip
#: Scales that share a second scale.
NESTED_BLOCK = 256


def scale_table() -> Tensor:
    """float32 [256], ascending: 7 decades, of which the upper ones are divided more finely, both signs, 0 and 1."""
    values = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1.0, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        values += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(values))


class DoubleRounding(NamedTuple):
    """Scales in 8 bits: scale = :func:`scale_table` [code] · largest [block] + mean. uint8 [n], float32 [⌈n / 256⌉], float32 []."""

    codes: Tensor
    largest: Tensor
    mean: Tensor


def double_rounding(scales: Tensor) -> DoubleRounding:
    """Scales less their mean, divided by the largest of 256, as the nearest of :func:`scale_table`."""
    table = scale_table().to(scales.device)
    mean = scales.mean()
    centred = torch.nn.functional.pad(scales - mean, (0, -len(scales) % NESTED_BLOCK)).view(-1, NESTED_BLOCK)
    largest = centred.abs().amax(1, keepdim=True)
    codes = torch.bucketize(centred / largest.clamp(min=1e-30), (table[1:] + table[:-1]) / 2)
    return DoubleRounding(codes.flatten()[: len(scales)].to(torch.uint8), largest.squeeze(1), mean)


def round_doubly(scales: Tensor) -> Tensor:
    """Scales as they come back from :func:`double_rounding`."""
    codes, largest, mean = double_rounding(scales)
    return scale_table().to(scales.device)[codes.long()] * largest.repeat_interleave(NESTED_BLOCK)[: len(scales)] + mean
