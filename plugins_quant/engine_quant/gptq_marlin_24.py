"""Checkpoints of Marlin's 2:4 variant: 4 or 8 bits, two of four inputs kept; held with the zeros, for which devices have kernels."""

from __future__ import annotations

from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quantize_config.json",), dtypes=("float16",))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """GPTQ's configuration that says that the tensors are in this order."""
    own = config.get("checkpoint_format") == "marlin_24"
    return "its tensors are 2:4 sparse in Marlin's order" if own and asked in (None, "gptq", "gptq_marlin_24") else None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._tiled import UNITS_24, Marlin24Format, Tiled, read_group, refuse_options

    reader = ConfigReader(config or {}, "quantization_config.")
    bits = reader.integer("bits", 4)
    if bits not in (4, 8):
        raise reader.complaint("bits", bits, "4 or 8")
    refuse_options(reader)
    group = read_group(reader)
    about = {"bits": bits, "group": group if group > 0 else "all inputs", "sparsity": "2:4, held with its zeros"}
    return Tiled(reader, lambda layer: Marlin24Format(bits, group, layer), about, UNITS_24, factors={"B_24": 2, "B_meta": 0})
