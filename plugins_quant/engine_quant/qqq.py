"""QQQ checkpoints: 4-bit weights, activations rounded to 8 bits per token; in groups of 128 or one group."""

from __future__ import annotations

from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1
#: Group scales are within the integers that are held.
FACTORS = {"s_channel": 1, "s_group": 0}


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quant_config.json", "quantize_config.json"), dtypes=("float16",))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """A side file that names no method, but has the keys of one."""
    return "it has wbits" if not method and "wbits" in config else None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._tiled import QQQFormat, Tiled, read_group

    reader = ConfigReader(config or {}, "quantization_config.")
    if reader.integer("wbits", 4) != 4:
        raise reader.complaint("wbits", reader.values["wbits"], "4")
    group = read_group(reader)
    held = "8 bits, as products of codes and group scales" if group > 0 else "4 bits"
    about = {"bits": 4, "held": held, "group": group if group > 0 else "all inputs", "activations": "rounded to 8 bits per token"}
    bits = 8 if group > 0 else 4
    return Tiled(reader, lambda layer: QQQFormat(group, layer), about, held=bits, factors=FACTORS | {"B": bits // 4})
