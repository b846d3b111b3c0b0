"""FBGEMM checkpoints: 8-bit floats with a scale per output; activations per token, their largest value capped."""

from __future__ import annotations

from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._config import required
from ._held import float8
from ._names import component, format_of, listed

ENGINE_API = 1


class FbgemmFloat8(Quantizer):
    """Every layer that has a scale in the checkpoint and is not in ``modules_to_not_convert``."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        reader = ConfigReader(required(config, "fbgemm_fp8", "--quantization ptpc_fp8"), "quantization_config.")
        self.upper = reader.optional_number("activation_scale_ub")
        self.ignored = component(listed(reader, "modules_to_not_convert"))

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        from ._floats import Float8Format
        from ._inputs import Inputs

        made = Float8Format((1, 0), Inputs("float8_e4m3fn", upper=self.upper))
        return format_of(layer, lambda name: None if self.ignored(name) else "fp8", lambda _: made)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("scaled_float8",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return float8(tensor)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        cap = "" if self.upper is None else f", at most {self.upper:g}"
        return {"bits": 8, "weight scale": "one per output", "activations": f"rounded to 8-bit floats per token{cap}"}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(dtypes=("bfloat16", "float16"))


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return FbgemmFloat8(config)
