"""ModelOpt's 4-bit integers: two outputs to a byte."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.layers.packed_quantized import GroupedInteger
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._inputs import Inputs, wrapped
from ._tensors import check, damaged, per_output, require


class NibbleRowsFormat(WeightFormat):
    """``weight`` uint8 [N / 2, K]: two's complement, output 2n in the low half of row n; ``weight_scale`` [N, K / group].

    ``weight_scale_2``, where activations are 8-bit floats, is the scale of the 8-bit floats that the weights are multiplied as; it is
    contained in ``weight_scale``.
    """

    def __init__(self, inputs: Inputs | None = None) -> None:
        self.inputs = inputs

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """Values, scales, and the activations' static scale."""
        return (
            CheckpointTensor("weight", 0, 1, 2),
            # The group is the width of the weight over that of its scale, which is not known before it is seen.
            CheckpointTensor("weight_scale", 0),
            CheckpointTensor("weight_scale_2", optional=True),
            *(self.inputs.tensors() if self.inputs else ()),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        rows = require(layer, tensors, "weight")
        check(layer, "weight", rows, (layer.outputs // 2, layer.inputs), (torch.uint8,))
        nibbles = torch.stack((rows & 15, rows >> 4), 1).flatten(0, 1).to(torch.int8)
        scale = require(layer, tensors, "weight_scale")
        columns = scale.shape[1] if scale.dim() == 2 else 0
        if not columns or layer.inputs % columns:
            raise damaged(layer, "weight_scale", f"has shape {list(scale.shape)}", f"[{layer.outputs}, groups]")
        if "weight_scale_2" in tensors:
            per_output(layer, "weight_scale_2", tensors["weight_scale_2"])
        # Two's complement of 4 bits: 8 to 15 stand for -8 to -1.
        values = nibbles - (nibbles > 7) * 16
        packed = GroupedInteger.of(values, scale, bits=4, group=layer.inputs // columns, exact=self.inputs is not None)
        return wrapped(self.inputs, packed, layer, tensors)
