"""Quark's 4-bit integers: eight outputs to a word, as AWQ keeps them, signed or not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, WeightFormat

from ._awq import ORDERS
from ._integers import SCALES, grouped, unpack_columns
from ._tensors import check, require


class NibbleWordsFormat(WeightFormat):
    """``weight`` int32 [inputs, outputs / 8], ``weight_scale`` [groups, outputs], ``weight_zero_point`` int32 [groups, outputs / 8].

    W[o, i] = scale · (q − zero). ``signed``: both are two's complement. ``reordered``: a word's fields are columns 0, 2, 4, 6, 1, 3, 5, 7.
    """

    def __init__(self, group: int, *, signed: bool, reordered: bool) -> None:
        self.group, self.signed = group, signed
        self.order = ORDERS[4] if reordered else tuple(range(8))

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        """See the contract."""
        return (
            CheckpointTensor("weight", 1, 0, output_group=8),
            CheckpointTensor("weight_scale", 1, 0, input_group=self.group),
            CheckpointTensor("weight_zero_point", 1, 0, output_group=8, input_group=self.group, optional=True),
        )

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        """See the contract."""
        groups, words = -(-layer.inputs // self.group), layer.outputs // 8
        packed = check(layer, "weight", require(layer, tensors, "weight"), (layer.inputs, words), (torch.int32,))
        scale = check(layer, "weight_scale", require(layer, tensors, "weight_scale"), (groups, layer.outputs), SCALES).t()
        zeros = None
        if "weight_zero_point" in tensors:
            stored = check(layer, "weight_zero_point", tensors["weight_zero_point"], (groups, words), (torch.int32,))
            zeros = self._codes(stored)
        return grouped(self._codes(packed), scale, zeros, bits=4, group=self.group)

    def _codes(self, words: Tensor) -> Tensor:
        """Unsigned, so that a signed 0 is 8."""
        codes = unpack_columns(words, 4, self.order)
        return codes ^ 8 if self.signed else codes
