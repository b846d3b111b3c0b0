"""Quark checkpoints: 8-bit floats per tensor or output, 8-bit integers with static activations, MXFP4; rules by name and type."""

from __future__ import annotations

from typing import Any

from engine.plugin import LinearShape, PartFormats, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._config import SIXTEEN_BITS, required
from ._held import float8, scaled
from ._names import format_of
from ._quark import QuarkConfig, Rule, read_quark

ENGINE_API = 1
#: Dtype of weights → the layout that they become.
_LAYOUTS = {
    "fp8_e4m3": "scaled_float8", "int8": "grouped_int 8", "fp4": "codebook 4", "int4": "grouped_int 4", "uint4": "grouped_int 4",
    "fp6_e2m3": "scaled_float8", "fp6_e3m2": "scaled_float8",
}  # fmt: skip


class Quark(Quantizer):
    """Each layer by its name's rule, its type's, or the global one."""

    def __init__(self, config: QuarkConfig) -> None:
        self.config = config

    def linear(self, layer: LinearShape) -> WeightFormat | PartFormats | None:
        """See the contract. Routers are no linear layers to the producer."""
        from ._quark import build

        return None if layer.role == "router" else format_of(layer, self.config.rule, lambda rule: build(rule, self.config.reordered))

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        rules = [rule for _, rule in self.config.by_name] + [self.config.linear or self.config.everywhere]
        return tuple(sorted({_LAYOUTS[rule.weight.dtype] for rule in rules if rule.weight is not None and rule.weight.dtype in _LAYOUTS}))

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        rule = self.config.rule(tensor.name.rpartition(".")[0])
        if rule is None or rule.weight is None:
            return None
        if _LAYOUTS.get(rule.weight.dtype) == "scaled_float8":
            return float8(tensor)
        # 8-bit scales are held in 16.
        return scaled(tensor, {"weight_scale": 2 if rule.weight.dtype == "fp4" else 1, "input_scale": 0})

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        rules: list[Rule] = [self.config.everywhere, *(rule for _, rule in self.config.by_name)]
        return {"schemes": "; ".join(sorted({rule.shown() for rule in rules}))}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return SIXTEEN_BITS


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return Quark(read_quark(required(config, "quark", "--quantization fp8")))
