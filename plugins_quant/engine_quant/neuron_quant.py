"""Plain weights rounded at load to what NEURON_QUANT_DTYPE says (s8, f8e4m3fn), one scale per output; any device."""

from __future__ import annotations

import os
from typing import Any

from engine.errors import ConfigError
from engine.plugin import LinearShape, QuantizationFacts, Quantizer, TensorInfo, WeightFormat, hookimpl

from ._held import rounded

ENGINE_API = 1
_DTYPES = ("s8", "f8e4m3fn")


class NeuronQuant(Quantizer):
    """``dtype``: s8 or f8e4m3fn. The mathematics of Neuron's vector_dynamic method, not its runtime."""

    def __init__(self, dtype: str) -> None:
        if dtype not in _DTYPES:
            raise ConfigError(
                f"NEURON_QUANT_DTYPE is {dtype!r}; it must be {' or '.join(_DTYPES)}.", fix=f"NEURON_QUANT_DTYPE={_DTYPES[0]}"
            )
        self.dtype = dtype

    def linear(self, layer: LinearShape) -> WeightFormat | None:
        """See the contract."""
        if layer.role != "linear":
            return None
        if self.dtype == "s8":
            from ._rows import RoundedRows

            return RoundedRows()
        from ._floats import RoundedFloat8Format

        return RoundedFloat8Format(None, per_output=True)

    def layouts(self) -> tuple[str, ...]:
        """See the contract."""
        return ("grouped_int 8" if self.dtype == "s8" else "scaled_float8",)

    def held(self, tensor: TensorInfo) -> int | None:
        """See the contract."""
        return rounded(tensor, 8)

    def describe(self) -> dict[str, Any]:
        """What the plan shows."""
        return {"bits": 8, "dtype": self.dtype, "weight scale": "one per output", "activations": "as they are"}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(online=True)


@hookimpl
def engine_create_quantizer() -> Quantizer:
    """See the specification."""
    return NeuronQuant(os.environ.get("NEURON_QUANT_DTYPE", "s8"))
