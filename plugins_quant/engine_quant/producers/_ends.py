"""What becomes of the embedding and the head, which most formats leave in 16 bits: half of a small model with a large vocabulary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import LinearShape, ProducedWeight, Producer, SourceModel

if TYPE_CHECKING:
    from torch import Tensor

_ENDS = ("embedding", "head")
_NOTE = (
    "The embedding is quantized, which the engine reads and transformers 5 refuses; --no-include-head writes what other programs load.",
)  # fmt: skip


class EndsProducer(Producer):
    """The embedding and the head in 8-bit integers, a scale per output, which loses next to nothing. --include-head quantizes them as
    the linear layers are, --no-include-head keeps them.
    """

    def __init__(self, model: SourceModel) -> None:
        self.ends = model.ends
        self.there = [layer for layer in model.layers if layer.role in _ENDS]

    def takes(self, layer: LinearShape) -> bool:
        """See the contract."""
        return layer.role == "linear" or (self.ends is not False and layer.role in _ENDS)

    def apart(self, layer: LinearShape) -> bool:
        """Whether it is kept in 8-bit integers whatever the linear layers are."""
        return self.ends is None and layer.role in _ENDS

    def produce(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """See the contract."""
        return self.round_end(layer, weight) if self.apart(layer) else self.round(layer, weight)

    @abstractmethod
    def round(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """As linear layers are."""

    @abstractmethod
    def round_end(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """In 8-bit integers, a scale per output."""

    def bits_of(self, layer: LinearShape) -> float:
        """The scales of outputs are few."""
        return 8.02 if self.apart(layer) else self.bits()

    def describe(self) -> dict[str, Any]:
        """See the contract."""
        shown = "8 bits" if self.ends is None else "alike" if self.ends else "as they are"
        return {**self.describe_layers(), **({"embedding and head": shown} if self.there else {})}

    @abstractmethod
    def describe_layers(self) -> dict[str, Any]:
        """What the report says of the linear layers."""

    def warnings(self) -> Sequence[str]:
        """See the contract."""
        return _NOTE if any(layer.role == "embedding" and self.takes(layer) for layer in self.there) else ()
