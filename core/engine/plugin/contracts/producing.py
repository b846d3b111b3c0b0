"""The contract of writing quantized checkpoints: ``engine quantize``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from engine.plugin.contracts.packed import LinearShape
from engine.plugin.facts import Checkpoint, ModelInfo, TensorInfo

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from engine.plugin.contracts.packed import PackedWeight


class SourceModel(msgspec.Struct, frozen=True):
    """A model that is to be quantized.

    ``config``: in the spelling of config.json. ``tensors``: all of the checkpoint, from its headers. ``layers``: the matrices that may be
    quantized, each by its name in the checkpoint (parts of fused layers and experts one by one), in the order of the network; what the
    user excludes is not among them. ``ends``: whether the user wants the embedding and the head quantized as other layers are; None: did
    not say, so that the method decides whether they are, and in how many bits.
    """

    checkpoint: Checkpoint
    config: dict[str, Any]
    info: ModelInfo
    tensors: tuple[TensorInfo, ...] = ()
    layers: tuple[LinearShape, ...] = ()
    ends: bool | None = None


@dataclass(frozen=True)
class ProducedWeight:
    """One weight as the format keeps it: ``tensors`` by suffix under the layer's name, and ``meaning``, the weight they stand for."""

    tensors: Mapping[str, Tensor]
    meaning: PackedWeight


class WeightOutput(ABC):
    """Takes tensors one by one and writes them to files; holds no more of them than it must.

    An ``OSError`` (no space) passes through; the command removes what was written.
    """

    @abstractmethod
    def add(self, name: str, tensor: Tensor) -> None:
        """A tensor under its name, once. Its memory may change afterwards."""

    @abstractmethod
    def finish(self) -> None:
        """All tensors came: make the files complete."""

    def close(self) -> None:
        """Release files, finished or not. May be called twice."""


class Producer(ABC):
    """A method of ``engine quantize`` on one model."""

    def takes(self, layer: LinearShape) -> bool:
        """Whether that layer is quantized; others are kept as they are. The default: linear layers, no head, embedding or router."""
        return layer.role == "linear"

    @abstractmethod
    def produce(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """Round a weight, floats [outputs, inputs] on the CPU (a view of a mapped file), of a layer that it ``takes``.

        It should need little memory beside the weight and the result: large ones are rounded in slices.
        """

    @abstractmethod
    def bits(self) -> float:
        """Bits of a linear layer's element, its share of the scales counted: what the size of the result is foretold from."""

    def bits_of(self, layer: LinearShape) -> float:
        """The same of one layer that it ``takes``, where layers differ."""
        return self.bits()

    def quantization_config(self, quantized: Sequence[LinearShape], kept: Sequence[str]) -> dict[str, Any] | None:
        """What config.json gets as ``quantization_config``. ``kept``: names of the matrices that were not quantized, without ``.weight``.

        None: the output says it itself (GGUF), and config.json is not written.
        """
        return None

    def open_output(self, folder: Path) -> WeightOutput | None:
        """The files that tensors go to; None: safetensors with an index where there are several."""
        return None

    def describe(self) -> dict[str, Any]:
        """What the report says of the method (bits, group size …)."""
        return {}

    def warnings(self) -> Sequence[str]:
        """What other programs will not do with the result, one sentence each."""
        return ()
