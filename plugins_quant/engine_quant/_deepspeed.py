"""Small floats without denormals, and weights rounded to them in runs of consecutive elements."""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

import torch
from torch import Tensor

from engine.layers.packed_quantized import Codebook, Joined, ScaledFloat8
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._tensors import sizes_of

#: Bits → exponent bits, mantissa bits.
FIELDS = {6: (3, 2), 8: (4, 3)}


def float_table(bits: int) -> Tensor:
    """The value of each code, float32 [2^bits]: (1 + m / 2^M) · 2^(e − bias) for every exponent e, 0 included; code 0 alone is 0."""
    exponents, mantissas = FIELDS[bits]
    codes = torch.arange(1 << bits)
    exponent = (codes >> mantissas & ((1 << exponents) - 1)) - ((1 << (exponents - 1)) - 1)
    value = (1 + (codes & ((1 << mantissas) - 1)).float() / (1 << mantissas)) * torch.exp2(exponent.float())
    value[0] = 0.0
    return torch.where(codes >> (bits - 1) == 1, -value, value)


class DeepSpeedFormat(WeightFormat):
    """The flattened weight of each part in runs of ``group`` elements, which may go on in the next output: scale = max|w| / largest value.

    A tensor-parallel rank rounds what it holds. The values of 6 bits are all values of float8_e4m3fn, and are kept as such.
    """

    def __init__(self, bits: int, group: int) -> None:
        self.bits, self.group = bits, group

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The plain weight."""
        return (CheckpointTensor("weight", 0, 1, plain=True),)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        parts = [self._part(weight) for weight in torch.split(tensors["weight"], list(sizes_of(layer)))]
        return parts[0] if len(parts) == 1 else Joined(parts)

    def _part(self, weight: Tensor) -> PackedWeight:
        outputs, inputs = weight.shape
        table = float_table(self.bits).to(weight.device)
        flat = weight.float().flatten()
        runs = torch.nn.functional.pad(flat, (0, -len(flat) % self.group)).view(-1, self.group)
        scale = (runs.abs().amax(1) / table.max()).clamp(min=1e-30)
        codes = nearest(runs / scale.unsqueeze(1), table).flatten()[: len(flat)].view(outputs, inputs)
        # What divides both a row and a run lies within one run of one row.
        own = gcd(self.group, inputs)
        scales = scale[torch.arange(0, len(flat), own, device=weight.device) // self.group].view(outputs, -1)
        if self.bits == 6:
            return ScaledFloat8(table[codes].to(torch.float8_e4m3fn), scales, rows=1, columns=own, exclusive=True)
        return Codebook.of(codes, table, scales, bits=8, group=own)


def nearest(values: Tensor, table: Tensor) -> Tensor:
    """The code of the entry of ``table`` nearest to each value, int64; halfway to the one of larger magnitude."""
    ordered, codes = table.sort(stable=True)
    between = (ordered[1:] + ordered[:-1]) / 2
    magnitude = torch.bucketize(values.abs(), between, right=True)
    places = torch.where(values < 0, torch.bucketize(values, between), magnitude)
    return codes[places]
