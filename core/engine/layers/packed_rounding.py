"""Rounding a dense weight to integers with a scale per group; slices of rows, so that little memory is needed beside the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

#: Elements that are rounded at a time: what a processor's caches hold.
SLICE = 1 << 20
#: Scales that are tried, relative to the one that just holds the group's largest magnitude.
FACTORS = tuple(0.60 + 0.03 * step for step in range(14))


class Rounded(NamedTuple):
    """weight ≈ scale · integer + shift: int8 [outputs, inputs], floats [outputs, groups]; ``shift`` None where symmetric."""

    integers: Tensor
    scale: Tensor
    shift: Tensor | None


def row_slices(outputs: int, inputs: int, elements: int = SLICE) -> Iterator[slice]:
    """Slices of rows of about that many elements each, at least one row."""
    step = max(1, elements // max(inputs, 1))
    return (slice(start, min(start + step, outputs)) for start in range(0, outputs, step))


def round_to_integers(
    weight: Tensor, low: int, high: int, group: int,
    *, asymmetric: bool = False, scale_dtype: torch.dtype | None = None, search: bool = False,
) -> Rounded:  # fmt: skip
    """Round [outputs, inputs] to nearest in [low, high]; ``scale_dtype``: that in which scales are kept, which counts for the rounding.

    ``search``: of :data:`FACTORS`, each group takes the scale with the least squared error (symmetric alone).
    """
    outputs, inputs = weight.shape
    groups = -(-inputs // group)
    dtype = scale_dtype or torch.float32
    padded = functional.pad(weight.float(), (0, groups * group - inputs)).view(outputs, groups, group)
    shift = None
    if asymmetric:
        least, most = padded.amin(-1).clamp(max=0), padded.amax(-1).clamp(min=0)
        scale = ((most - least) / (high - low)).clamp(min=1e-10).to(dtype)
        shift = (least - low * scale.float()).to(dtype)
        padded = padded - shift.float().unsqueeze(-1)
    else:
        widest = (padded.abs().amax(-1) / high).clamp(min=1e-10)
        scale = _best(padded, widest, low, high, dtype) if search else widest.to(dtype)
    steps = scale.float().clamp(min=torch.finfo(dtype).tiny)
    integers = padded.div(steps.unsqueeze(-1)).round_().clamp_(low, high).flatten(1)[:, :inputs].to(torch.int8)
    return Rounded(integers, scale, shift)


def _best(padded: Tensor, widest: Tensor, low: int, high: int, dtype: torch.dtype) -> Tensor:
    best, least = widest.to(dtype), torch.full_like(widest, torch.inf)
    for factor in (1.0, *FACTORS):
        tried = (widest * factor).to(dtype)
        steps = tried.float().clamp(min=torch.finfo(dtype).tiny).unsqueeze(-1)
        error = padded.div(steps).round_().clamp_(low, high).mul_(steps).sub_(padded).square_().sum(-1)
        better = error < least
        least, best = torch.where(better, error, least), torch.where(better, tried, best)
    return best
