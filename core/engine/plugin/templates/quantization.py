"""Rounds every linear layer to 8-bit integers with one scale per output, at load; named example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.plugin import CheckpointTensor, LinearShape, PackedWeight, Quantizer, WeightFormat, hookimpl

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ENGINE_API = 1


class ExampleFormat(WeightFormat):
    """The checkpoint keeps a plain ``weight``, which tensor-parallel ranks cut along either axis."""

    def tensors(self) -> tuple[CheckpointTensor, ...]:
        return (CheckpointTensor("weight", output_axis=0, input_axis=1),)

    def pack(self, layer: LinearShape, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> PackedWeight:
        from engine.layers.packed_integer import GroupedInteger

        return GroupedInteger.quantize(tensors["weight"], bits=8)


class ExampleQuantizer(Quantizer):
    """Every layer but the head."""

    def linear(self, layer: LinearShape) -> WeightFormat | None:
        return None if layer.name == "lm_head" else ExampleFormat()

    def describe(self) -> dict[str, Any]:
        return {"bits": 8, "scale": "per output"}


@hookimpl
def engine_create_quantizer() -> Quantizer:
    return ExampleQuantizer()
