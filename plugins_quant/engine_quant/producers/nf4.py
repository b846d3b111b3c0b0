"""nf4 in blocks of 64 with doubly quantized scales, as bitsandbytes saves it; embedding and head in its 8-bit rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from engine.errors import ConfigError
from engine.plugin import LinearShape, ProducedWeight, Producer, SourceModel, hookimpl

from ._ends import EndsProducer

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


@dataclass(frozen=True)
class Options:
    """``double``: scales are rounded to 8 bits themselves. ``compute``: what bitsandbytes computes in."""

    double: bool = True
    compute: Literal["bfloat16", "float16", "float32"] = "bfloat16"


class Nf4Producer(EndsProducer):
    """``weight`` uint8, its ``absmax``, tables and ``quant_state`` under bitsandbytes' names."""

    def __init__(self, model: SourceModel, options: Options) -> None:
        super().__init__(model)
        self.double, self.compute = options.double, options.compute

    def round(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """What is written is read back by the engine's own reader: that is its meaning."""
        import torch

        from engine_quant._bnb import FourBitFormat

        from ._bnb_blocks import quantized

        tensors = quantized(weight, double=self.double)
        return ProducedWeight(tensors, FourBitFormat(None).pack(layer, tensors, torch.float32))

    def round_end(self, layer: LinearShape, weight: Tensor) -> ProducedWeight:
        """As bitsandbytes' 8 bits, but in one column, as its 4 bits are: no program takes the bytes for plain numbers then."""
        import torch

        from engine_quant._bnb import Int8Format

        from ._bnb_blocks import rows

        tensors = rows(weight)
        values = tensors["weight"].view(weight.shape)
        return ProducedWeight(tensors, Int8Format(None).pack(layer, {**tensors, "weight": values}, torch.float32))

    def bits(self) -> float:
        """Codes, and a scale per 64: of 32 bits, or of 8 with another one of 32 per 256."""
        return 4 + (8 / 64 + 32 / 64 / 256 if self.double else 32 / 64)

    def quantization_config(self, quantized: Sequence[LinearShape], kept: Sequence[str]) -> dict[str, Any]:
        """As transformers saves it; ``int8_rows`` is the engine's own key."""
        rows = [layer.name for layer in quantized if self.apart(layer)]
        return {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.double, "bnb_4bit_compute_dtype": self.compute, "bnb_4bit_quant_storage": "uint8",
            "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": list(kept),
            "llm_int8_threshold": 6.0, **({"int8_rows": rows} if rows else {}),
        }  # fmt: skip

    def describe_layers(self) -> dict[str, Any]:
        """See the base."""
        return {"format": "bitsandbytes", "bits": 4, "scales": "one per 64" + (", doubly quantized" if self.double else "")}


@hookimpl
def engine_create_producer(model: SourceModel, options: Options) -> Producer:
    """See the specification."""
    if model.ends:
        raise ConfigError(
            "--include-head: nf4 has no form for an embedding in 4 bits; without the flag it has 8.", fix="--method int4 --include-head"
        )
    return Nf4Producer(model, options)
