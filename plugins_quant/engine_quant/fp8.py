"""8-bit floats: checkpoints with a scale per tensor or block, static or dynamic activations; or 16-bit weights rounded at load."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.layers.config import ConfigReader
from engine.plugin import LinearShape, PartFormats, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import float8, rounded
from ._names import component, format_of, listed

ENGINE_API = 1

#: Some producers call the scale by its inverse, though it is multiplied.
_SCALES = ("weight_scale", "weight_scale_inv")
_IGNORED = ("ignored_layers", "modules_to_not_convert")


class Float8(Quantizer):
    """``config`` None: 16-bit weights are rounded while loading, one scale per part, activations per token."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        self.online = config is None
        reader = ConfigReader(config or {}, "quantization_config.")
        self.static = reader.text("activation_scheme", "dynamic", known=("static", "dynamic")) == "static"
        self.block = _block(reader)
        if self.block and self.static:
            raise ModelFileError(
                "config.json: quantization_config.activation_scheme is 'static', which weight_block_size excludes.",
                fix="activation_scheme dynamic",
            )
        self.powers = reader.text("scale_fmt", "float", known=("float", "ue8m0")) == "ue8m0"
        self.ignored = component(name for key in _IGNORED for name in listed(reader, key))

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract."""
        from ._floats import Float8Format, RoundedFloat8Format
        from ._inputs import Inputs

        if self.online and layer.role != "linear":
            return None
        inputs = Inputs("float8_e4m3fn", scales=("input_scale", "activation_scale") if self.static else ())
        if self.block:
            import torch

            inputs = Inputs("float8_e4m3fn", group=self.block[1], scale_dtype=torch.float8_e8m0fnu if self.powers else None)
        made = RoundedFloat8Format(inputs) if self.online else Float8Format(self.block or (0, 0), inputs, _SCALES)
        return format_of(layer, lambda name: None if self.ignored(name) else "fp8", lambda _: made)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("scaled_float8",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        if self.online:
            return rounded(tensor, 8)
        return float8(tensor, self.block or (0, 0))

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        scale = f"blocks of {self.block[0]} × {self.block[1]}" if self.block else "one per tensor"
        how = "static, one scale" if self.static else f"per token and {self.block[1]}" if self.block else "per token"
        return {"bits": 8, "weight scale": scale, "activations": f"rounded to 8-bit floats {how}"}


def _block(reader: ConfigReader) -> tuple[int, int] | None:
    found = reader.integers("weight_block_size")
    if not found:
        return None
    if len(found) != 2 or min(found) < 1:
        raise reader.complaint("weight_block_size", list(found), "two positive integers, outputs and inputs")
    return found[0], found[1]


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(online=True, dtypes=("bfloat16", "float16"))


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return Float8(config)
