"""Plain weights rounded to 8-bit integers at load, one scale per output; plain mathematics on any device."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import rounded

ENGINE_API = 1


class TpuInt8(Quantizer):
    """scale = max(max|row|, 1e-5) / 127; every linear layer but the head and routers."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        scheme = ConfigReader(config or {}, "quantization_config.").text("activation_scheme", "none")
        if scheme != "none":
            raise ModelFileError(
                f"config.json: quantization_config.activation_scheme is {scheme!r}; tpu_int8 leaves activations as they are.",
                fix="activation_scheme none",
            )

    def linear(self, layer: LinearShape) -> WeightFormat | None:
        """See the contract."""
        from ._rows import RoundedRows

        return RoundedRows(least=1e-5, lowest=-128) if layer.role == "linear" else None

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("grouped_int 8",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return rounded(tensor, 8)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        return {"bits": 8, "weight scale": "one per output", "activations": "as they are"}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(online=True, dtypes=("bfloat16", "float16"))


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return TpuInt8(config)
