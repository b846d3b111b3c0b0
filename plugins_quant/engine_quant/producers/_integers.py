"""Integers of 4 and 8 bits packed into 32-bit words, as compressed-tensors keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.plugin import LinearShape, ProducedWeight, SourceModel

from ._compressed import CompressedProducer, group_of, weights_of

if TYPE_CHECKING:
    from torch import Tensor


class IntegerProducer(CompressedProducer):
    """``weight_packed`` int32 [outputs, ⌈inputs · bits / 32⌉], ``weight_scale`` [outputs, groups], ``weight_shape``.

    Scales are kept in the weights' own 16-bit dtype (float32 of float32 weights), and values are rounded for the scale that is kept.
    """

    format = "pack-quantized"

    def __init__(self, model: SourceModel, width: int, group: int | None, search: bool) -> None:
        super().__init__(model)
        self.width, self.search = width, search
        self.group = group_of(model, group, [layer for layer in model.layers if self.takes(layer)])
        self.weights = weights_of(width, "int", self.group)

    def produce(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """See the contract."""
        import torch

        from engine.layers.packed_integer import GroupedInteger

        from ._words import Words, packed_words

        rounded = GroupedInteger.quantize(weight, bits=self.width, group=self.group, scale_dtype=weight.dtype, search=self.search)
        words = packed_words(rounded)
        shape = torch.tensor([layer.outputs, layer.inputs])
        tensors = {"weight_packed": words, "weight_scale": rounded.scale, "weight_shape": shape}
        return ProducedWeight(tensors, Words(words, rounded.scale, bits=self.width, inputs=layer.inputs, group=rounded.group))

    def bits(self) -> float:
        """Values, and a scale of 16 bits per group."""
        return self.width + (16 / self.group if self.group else 0.02)

    def describe(self) -> dict[str, Any]:
        """See the contract."""
        how = "the scale of least squared error per group" if self.search else "to nearest"
        group = self.group or "one output"
        return {"format": "compressed-tensors, pack-quantized", "bits": self.width, "group size": group, "rounding": how}
