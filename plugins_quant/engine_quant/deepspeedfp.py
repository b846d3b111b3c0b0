"""16-bit weights rounded at load to floats of 6 (e3m2) or 8 (e4m3) bits with a scale per run of elements."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import rounded

ENGINE_API = 1


class DeepSpeedFloat(Quantizer):
    """Every linear layer but the head and routers. ``bits`` and ``group_size`` come from the side file."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        if config is None:
            raise ModelFileError(
                "--quantization deepspeedfp needs quant_config.json with bits (6 or 8) and group_size.",
                fix='a file quant_config.json with {"bits": 8, "group_size": 512} beside config.json',
            )
        reader = ConfigReader(config, "quant_config.json: ")
        self.bits, self.group = reader.integer("bits"), reader.integer("group_size", 512)
        if self.bits not in (6, 8):
            raise reader.complaint("bits", self.bits, "6 or 8")
        if self.group < 1:
            raise reader.complaint("group_size", self.group, "a positive number of elements")

    def linear(self, layer: LinearShape) -> WeightFormat | None:
        """See the contract."""
        from ._deepspeed import DeepSpeedFormat

        return DeepSpeedFormat(self.bits, self.group) if layer.role == "linear" else None

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("scaled_float8" if self.bits == 6 else "codebook 8",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return rounded(tensor, 8, self.group)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        return {"bits": self.bits, "group size": self.group, "activations": "as they are"}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quant_config.json", "quantize_config.json"), dtypes=("float16", "bfloat16"))


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return DeepSpeedFloat(config)
