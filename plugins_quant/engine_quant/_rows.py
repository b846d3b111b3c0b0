"""Plain weights rounded to 8-bit integers while loading, one scale per output; activations stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.layers.packed_quantized import GroupedInteger
from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat


class RoundedRows(WeightFormat):
    """scale = max(max|w|, ``least``) / 127 of each output; integers from ``lowest`` to 127."""

    def __init__(self, *, least: float = 1e-12, lowest: int = -127) -> None:
        self.least, self.lowest = least, lowest

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """The plain weight."""
        return (CheckpointTensor("weight", 0, 1, plain=True),)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        weight = tensors["weight"].float()
        scale = weight.abs().amax(1, keepdim=True).clamp(min=self.least) / 127
        integers = (weight / scale).round().clamp(self.lowest, 127)
        return GroupedInteger.of(integers, scale, bits=8, group=layer.inputs, exact=True)
