"""Writes linear layers as 8-bit integers with one scale per output, for compressed-tensors; named example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.plugin import LinearShape, ProducedWeight, Producer, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class ExampleProducer(Producer):
    """``weight`` int8 and ``weight_scale`` beside each other."""

    def produce(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        from engine.layers.packed_integer import GroupedInteger

        rounded = GroupedInteger.quantize(weight, bits=8, scale_dtype=weight.dtype)
        return ProducedWeight({"weight": rounded.values, "weight_scale": rounded.scale}, rounded)

    def bits(self) -> float:
        return 8.0

    def quantization_config(self, quantized: Sequence[LinearShape], kept: Sequence[str]) -> dict[str, Any]:
        weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
        return {
            "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": list(kept),
        }  # fmt: skip


@hookimpl
def engine_create_producer() -> Producer:
    return ExampleProducer()
