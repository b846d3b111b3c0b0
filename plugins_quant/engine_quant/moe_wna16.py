"""GPTQ checkpoints of 4 and 8 bits without act-order, and AWQ ones of 4 bits, asked for by name; experts in groups that shards may cut."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError, ModelFileError
from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quantize_config.json",), dtypes=("bfloat16", "float16"))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """Only where it is asked for."""
    if asked != "moe_wna16" or method not in ("gptq", "awq"):
        return None
    bits = config.get("bits", config.get("w_bit"))
    allowed = (4, 8) if method == "gptq" else (4,)
    if bits not in allowed or config.get("desc_act"):
        found = "desc_act" if bits in allowed else f"{bits!r} bits"
        raise ConfigError(
            f"--quantization moe_wna16: the checkpoint's {method} has {found}; it reads gptq of 4 or 8 bits without desc_act, awq of 4.",
            fix=f"--quantization {method}",
        )
    return f"{method} of {bits} bits"


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """The quantizer of the checkpoint's own method; it keeps all scales, so that shards may cut groups."""
    from ._awq import AWQ
    from ._gptq import GPTQ

    found = config or {}
    method = found.get("quant_method") or ("awq" if "w_bit" in found else "gptq")
    if method == "awq":
        return AWQ(found)
    if method != "gptq":
        raise ModelFileError(f"config.json: quantization_config.quant_method is {method!r}; moe_wna16 reads gptq and awq.")
    return GPTQ(found, cuts_groups=True)
