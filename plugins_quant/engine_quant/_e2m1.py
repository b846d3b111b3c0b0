"""Weights in 4-bit floats (e2m1), two to a byte, with a small scale per 16 or 32 inputs: NVFP4 and MXFP4; 6-bit floats likewise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.layers.packed_quantized import E2M1, Codebook, ScaledFloat8
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._floats import PLAIN, as_scale, smaller
from ._inputs import Inputs, wrapped
from ._tensors import check, per_output, require


@dataclass(frozen=True)
class Spelling:
    """Under which names a producer keeps the parts. ``outer``: the scale of the whole layer; ``reciprocal``: 1 / it is stored."""

    weight: str = "weight_packed"
    scale: str = "weight_scale"
    outer: str | None = "weight_global_scale"
    reciprocal: bool = True


class E2M1Format(WeightFormat):
    """codes uint8 [N, K / 2], the even input in the low half; a scale per ``group`` inputs [N, K / group] in e4m3 or e8m0 (bytes);
    one outer scale per layer. Each part of a fused layer keeps its own outer scale.
    """  # fmt: skip

    def __init__(self, group: int, spelling: Spelling, inputs: Inputs | None = None) -> None:
        self.group, self.spelling, self.inputs = group, spelling, inputs

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The codes, their scales, and the activations' static scale."""
        names = self.spelling
        outer = (CheckpointTensor(names.outer, optional=True),) if names.outer else ()
        return (
            CheckpointTensor(names.weight, 0, 1, 1, 2),
            CheckpointTensor(names.scale, 0, 1, 1, self.group, optional=True, spreads=True),
            *outer,
            *(self.inputs.tensors() if self.inputs else ()),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        names = self.spelling
        codes = require(layer, tensors, names.weight)
        check(layer, names.weight, codes, (layer.outputs, -(-layer.inputs // 2)), (torch.uint8,))
        found = require(layer, tensors, names.scale)
        scale = as_scale(layer, names.scale, found)
        check(layer, names.scale, scale, dtypes=(torch.float8_e4m3fn, torch.float8_e8m0fnu, *PLAIN))
        group = smaller(self.group, (layer.inputs,), scale.shape[-1]) or self.group
        check(layer, names.scale, scale, (layer.outputs, -(-layer.inputs // group)))
        outer = None
        if names.outer is not None:
            outer = per_output(layer, names.outer, require(layer, tensors, names.outer))
            outer = 1 / outer if names.reciprocal else outer
        table = torch.tensor(E2M1, device=codes.device)
        packed = Codebook(codes, table, scale, bits=4, inputs=layer.inputs, group=group, outer=outer)
        return wrapped(self.inputs, packed, layer, tensors)


class SixBitFormat(WeightFormat):
    """uint8 [N, 3 K / 4]: four 6-bit codes in three bytes, the first in the lowest bits; ``weight_scale`` e8m0 [N, K / group].

    ``exponent``: its bits, 2 (e2m3) or 3 (e3m2). Every value of either is one of e4m3 too, in which the weight is held.
    """

    def __init__(self, group: int, inputs: Inputs | None, *, exponent: int = 2, suffix: str = "weight_packed") -> None:
        self.group, self.inputs, self.exponent, self.suffix = group, inputs, exponent, suffix

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The codes, their scales, and the activations' static scale."""
        scale = CheckpointTensor("weight_scale", 0, 1, 1, self.group, spreads=True)
        return (CheckpointTensor(self.suffix, 0, 1, 1, 4, input_items=3), scale, *(self.inputs.tensors() if self.inputs else ()))

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        packed = require(layer, tensors, self.suffix)
        check(layer, self.suffix, packed, (layer.outputs, -(-layer.inputs // 4) * 3), (torch.uint8,))
        scale = as_scale(layer, "weight_scale", require(layer, tensors, "weight_scale"))
        group = smaller(self.group, (layer.inputs,), scale.shape[-1]) or self.group
        check(layer, "weight_scale", scale, (layer.outputs, -(-layer.inputs // group)))
        a, b, c = (packed[:, index::3].int() for index in range(3))
        codes = torch.stack((a & 63, (a >> 6) | (b & 15) << 2, (b >> 4) | (c & 3) << 4, c >> 2), -1).flatten(1)[:, : layer.inputs]
        magnitudes = small_floats(self.exponent, 5 - self.exponent)
        table = torch.tensor(magnitudes + [-each for each in magnitudes]).to(torch.float8_e4m3fn).view(torch.uint8)
        values = table.to(codes.device)[codes].view(torch.float8_e4m3fn)
        return wrapped(self.inputs, ScaledFloat8(values, scale, rows=1, columns=group), layer, tensors)


def small_floats(exponent: int, mantissa: int) -> list[float]:
    """The magnitudes of a small float without infinities, by code."""
    steps, least = 1 << mantissa, 2.0 ** (2 - (1 << (exponent - 1)))
    subnormal = [each / steps * least for each in range(steps)]
    return subnormal + [(1 + each / steps) * least * 2**power for power in range((1 << exponent) - 1) for each in range(steps)]
