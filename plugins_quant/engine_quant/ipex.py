"""GPTQ and AWQ checkpoints of 4 bits on CPUs: the engine's own kernels do what Intel's ended extension did."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError, ModelFileError
from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1

_METHODS = ("gptq", "awq")


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quant_config.json", "quantize_config.json"), dtypes=("bfloat16", "float16"))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """4-bit checkpoints of gptq and awq on a CPU or XPU, and anywhere where it is asked for."""
    if method not in _METHODS or asked not in (None, "ipex") or (asked is None and device.name not in ("cpu", "xpu")):
        return None
    bits = config.get("bits", config.get("w_bit"))
    if bits == 4:
        return f"4 bits on {device.name}"
    if asked == "ipex":
        raise ConfigError(f"--quantization ipex: the checkpoint has {bits!r} bits; it must have 4.", fix=f"--quantization {method}")
    return None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """The quantizer of the checkpoint's own method; the activations' rounding is the device's."""
    from ._awq import AWQ
    from ._gptq import GPTQ

    found = config or {}
    method = found.get("quant_method") or ("awq" if "w_bit" in found else "gptq")
    if method not in _METHODS:
        raise ModelFileError(f"config.json: quantization_config.quant_method is {method!r}; ipex reads {' and '.join(_METHODS)}.")
    return AWQ(found) if method == "awq" else GPTQ(found)
