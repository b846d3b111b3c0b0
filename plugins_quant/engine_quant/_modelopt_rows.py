"""ModelOpt's 4-bit integers: two outputs to a byte."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.layers.packed_quantized import GroupedInteger
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._floats import PLAIN, smaller
from ._inputs import Inputs, wrapped
from ._tensors import check, per_output, require


class NibbleRowsFormat(WeightFormat):
    """``weight`` uint8 [N / 2, K]: two's complement, output 2n in the low half of row n; ``weight_scale`` [N, K / group].

    ``weight_scale_2``, where activations are 8-bit floats, is the scale of the 8-bit floats that the weights are multiplied as; it is
    contained in ``weight_scale``.
    """

    def __init__(self, group: int, inputs: Inputs | None = None) -> None:
        self.group, self.inputs = group, inputs

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Values, scales, and the activations' static scale."""
        return (
            CheckpointTensor("weight", 0, 1, 2),
            CheckpointTensor("weight_scale", 0, 1, 1, self.group, spreads=True),
            CheckpointTensor("weight_scale_2", optional=True),
            *(self.inputs.tensors() if self.inputs else ()),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        rows = require(layer, tensors, "weight")
        check(layer, "weight", rows, (layer.outputs // 2, layer.inputs), (torch.uint8,))
        nibbles = torch.stack((rows & 15, rows >> 4), 1).flatten(0, 1).to(torch.int8)
        scale = require(layer, tensors, "weight_scale")
        group = smaller(self.group, (layer.inputs,), scale.shape[-1]) or self.group
        check(layer, "weight_scale", scale, (layer.outputs, -(-layer.inputs // group)), PLAIN)
        if "weight_scale_2" in tensors:
            per_output(layer, "weight_scale_2", tensors["weight_scale_2"])
        # Two's complement of 4 bits: 8 to 15 stand for -8 to -1.
        values = nibbles - (nibbles > 7) * 16
        packed = GroupedInteger.of(values, scale, bits=4, group=group, exact=self.inputs is not None)
        return wrapped(self.inputs, packed, layer, tensors)
