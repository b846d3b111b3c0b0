"""Integers in 32-bit words as compressed-tensors packs them: the canonical bytes of 4 bits, and those of 8 bits 128 higher."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.layers.packed_integer import GroupedInteger, row_bytes
from engine.plugin import LinearShape, PackedWeight, ProducedWeight


def rounded_words(layer: LinearShape, weight: Tensor, *, bits: int, group: int, search: bool) -> ProducedWeight:
    """``weight_packed`` int32 [outputs, ⌈inputs · bits / 32⌉], ``weight_scale`` [outputs, groups], ``weight_shape``; ``group`` 0: a row.

    Scales are kept in the weights' own 16-bit dtype (float32 of float32 weights), and values are rounded for the scale that is kept.
    """
    rounded = GroupedInteger.quantize(weight, bits=bits, group=group, scale_dtype=weight.dtype, search=search)
    words = packed_words(rounded)
    tensors = {"weight_packed": words, "weight_scale": rounded.scale, "weight_shape": torch.tensor([layer.outputs, layer.inputs])}
    return ProducedWeight(tensors, Words(words, rounded.scale, bits=bits, inputs=layer.inputs, group=rounded.group))


def packed_words(rounded: GroupedInteger) -> Tensor:
    """int32 [outputs, ⌈inputs · bits / 32⌉]: the memory of the values, which are changed, where rows are whole words."""
    raw = rounded.values.view(torch.uint8)
    if rounded.bits == 8:
        raw.bitwise_xor_(128)
    left = -raw.shape[1] % 4
    return (torch.nn.functional.pad(raw, (0, left)) if left else raw).view(torch.int32)


class Words(PackedWeight):
    """What the words mean, taken apart row by row: a second copy of a large embedding would be all memory that there is."""

    layout = "grouped_int"

    def __init__(self, words: Tensor, scale: Tensor, *, bits: int, inputs: int, group: int) -> None:
        self.words, self.scale, self.bits, self.group = words, scale, bits, group
        self.outputs, self.inputs = len(words), inputs

    def take(self, which: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """See the contract."""
        raw = self.words[which].view(torch.uint8)[:, : row_bytes(self.bits, self.inputs)]
        values = (raw ^ 128).view(torch.int8) if self.bits == 8 else raw
        rows = GroupedInteger(values, self.scale[which], bits=self.bits, inputs=self.inputs, group=self.group)
        return rows.dequantize(dtype)

    def nbytes(self) -> int:
        """Bytes of words and scales."""
        return self.words.nbytes + self.scale.nbytes
