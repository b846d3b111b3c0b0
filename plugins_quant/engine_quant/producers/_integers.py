"""Integers of 4 and 8 bits packed into 32-bit words, as compressed-tensors keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.plugin import LinearShape, ProducedWeight, SourceModel

from ._compressed import PACKED, CompressedProducer, group_of, weights_of

if TYPE_CHECKING:
    from torch import Tensor


class IntegerProducer(CompressedProducer):
    """``width`` bits with a scale per ``group`` inputs; see :func:`rounded_words`."""

    format = PACKED

    def __init__(self, model: SourceModel, width: int, group: int | None, search: bool) -> None:
        super().__init__(model)
        self.width, self.search = width, search
        self.group = group_of(group, [layer for layer in model.layers if self.takes(layer) and not self.apart(layer)])
        self.weights = weights_of(width, "int", self.group)

    def round(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """See the base."""
        from ._words import rounded_words

        return rounded_words(layer, weight, bits=self.width, group=self.group, search=self.search)

    def bits(self) -> float:
        """Values, and a scale of 16 bits per group."""
        return self.width + (16 / self.group if self.group else 0.02)

    def describe_layers(self) -> dict[str, Any]:
        """See the base."""
        how = "the scale of least squared error per group" if self.search else "to nearest"
        group = self.group or "one output"
        return {"format": "compressed-tensors, pack-quantized", "bits": self.width, "group size": group, "rounding": how}
