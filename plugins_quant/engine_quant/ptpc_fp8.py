"""16-bit weights rounded to 8-bit floats at load, one scale per output, activations per token; plain mathematics on any device."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import rounded
from ._names import component, format_of, listed

ENGINE_API = 1


class PerTokenPerOutput(Quantizer):
    """Rounds every linear layer but the head and routers while loading."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        reader = ConfigReader(config or {}, "quantization_config.")
        scheme = reader.text("activation_scheme", "dynamic")
        if scheme != "dynamic":
            raise ModelFileError(
                f"config.json: quantization_config.activation_scheme is {scheme!r}; ptpc_fp8 rounds activations per token alone.",
                fix="--quantization fp8",
            )
        self.ignored = component(listed(reader, "ignored_layers"))

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        from ._floats import RoundedFloat8Format
        from ._inputs import Inputs

        if layer.role != "linear":
            return None
        made = RoundedFloat8Format(Inputs("float8_e4m3fn"), per_output=True)
        return format_of(layer, lambda name: None if self.ignored(name) else "fp8", lambda _: made)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("scaled_float8",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return None if self.ignored(tensor.name.removesuffix(".weight")) else rounded(tensor, 8)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        return {"bits": 8, "weight scale": "one per output", "activations": "rounded to 8-bit floats per token"}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(online=True, dtypes=("bfloat16", "float16"))


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return PerTokenPerOutput(config)
