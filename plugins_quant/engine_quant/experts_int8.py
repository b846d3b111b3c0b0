"""Experts rounded to 8-bit integers at load, one scale per output; all other layers stay as they are."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError
from engine.plugin import LinearShape, ModelInfo, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import is_expert, rounded

ENGINE_API = 1


class ExpertsInt8(Quantizer):
    """scale = max|row| / 127 in every expert."""

    def linear(self, layer: LinearShape) -> WeightFormat | None:
        """See the contract."""
        from ._rows import RoundedRows

        return RoundedRows() if layer.experts else None

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("grouped_int 8",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return rounded(tensor, 8) if is_expert(tensor) else None

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        return {"bits": 8, "weight scale": "one per output of each expert", "other layers": "as they are"}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(online=True, dtypes=("bfloat16", "float16"))


@hookimpl
def engine_create_quantizer(info: ModelInfo) -> Quantizer:
    """See the specification."""
    if not info.num_experts:
        raise ConfigError(
            f"--quantization experts_int8 rounds experts alone, but {info.architecture} has none.", fix="--quantization tpu_int8"
        )
    return ExpertsInt8()
