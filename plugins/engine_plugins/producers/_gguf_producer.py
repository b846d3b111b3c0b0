"""GGUF as a method of ``engine quantize``: rows of blocks, and the file that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.plugin import LinearShape, ProducedWeight, Producer, SourceModel, WeightOutput
from engine_plugins._gguf.metadata import describe_model
from engine_plugins._gguf.written import Written

from ._gguf_blocks import BLOCK, blocks_of

if TYPE_CHECKING:
    from torch import Tensor

_TAKEN = ("linear", "embedding", "head")
_BITS = {"Q8_0": 8.5, "Q4_0": 4.5}


class GgufProducer(Producer):
    """``kind``: the blocks of linear layers; ``ends``: those of the embedding and the head, unless --no-include-head keeps these."""

    def __init__(self, model: SourceModel, kind: str, ends: str) -> None:
        self.model, self.kind, self.ends = model, kind, ends
        # Refuses what GGUF cannot say before anything is written.
        self.described = describe_model(model, kind)

    def takes(self, layer: LinearShape) -> bool:
        """Rows must be whole blocks."""
        wanted = _TAKEN if self.model.ends is not False else ("linear",)
        return layer.role in wanted and layer.inputs % BLOCK == 0

    def produce(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """See the contract."""
        kind = self._kind_of(layer)
        blocks = blocks_of(kind, weight)
        return ProducedWeight({kind.lower(): blocks.rows}, blocks)

    def bits(self) -> float:
        """See the contract."""
        return _BITS[self.kind]

    def bits_of(self, layer: LinearShape) -> float:
        """See the contract."""
        return _BITS[self._kind_of(layer)]

    def _kind_of(self, layer: LinearShape) -> str:
        return self.kind if layer.role == "linear" else self.ends

    def open_output(self, folder: Path) -> WeightOutput:
        """``model-<type>.gguf``."""
        from ._gguf_output import GgufOutput

        return GgufOutput(folder / f"model-{self.kind}.gguf", Written.of(self.model), self.described.metadata, self.described.tensors)

    def describe(self) -> dict[str, Any]:
        """See the contract."""
        return {"format": "GGUF", "type": self.kind, "embedding and head": self.ends if self.model.ends is not False else "as they are"}

    def warnings(self) -> Sequence[str]:
        """What of the vocabulary GGUF cannot say."""
        return self.described.notes
