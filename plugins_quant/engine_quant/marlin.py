"""Checkpoints in Marlin's own order: symmetric 4 bits, in groups of 128 or one group."""

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
    own = config.get("checkpoint_format") == "marlin" or config.get("is_marlin_format") is True
    return "its tensors are in Marlin's order" if own and asked in (None, "gptq", "marlin") else None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._tiled import MarlinFormat, Tiled, read_group, refuse_options

    reader = ConfigReader(config or {}, "quantization_config.")
    if reader.integer("bits", 4) != 4:
        raise reader.complaint("bits", reader.values["bits"], "4")
    refuse_options(reader)
    group = read_group(reader)
    about = {"bits": 4, "group": group if group > 0 else "all inputs", "zero points": "none"}
    return Tiled(reader, lambda layer: MarlinFormat(group, layer), about)
