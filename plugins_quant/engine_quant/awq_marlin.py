"""AWQ checkpoints of 4 and 8 bits, a quantized lm_head included; the name of their fast path on NVIDIA GPUs."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError
from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1

_GROUPS = (-1, 32, 64, 128)


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quantize_config.json",), dtypes=("float16", "bfloat16"))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """Checkpoints of awq: by itself on CUDA, anywhere where it is asked for."""
    if method != "awq" or asked not in (None, "marlin", "awq_marlin") or (asked is None and device.name != "cuda"):
        return None
    bits, group = config.get("bits", config.get("w_bit")), config.get("group_size", config.get("q_group_size", -1))
    if bits in (4, 8) and group in _GROUPS:
        return "4 or 8 bits with zero points"
    if asked == "awq_marlin":
        known = ", ".join(map(str, _GROUPS))
        raise ConfigError(
            f"--quantization awq_marlin: the checkpoint has {bits!r} bits in groups of {group!r}; it must be 4 or 8 in groups of {known}.",
            fix="--quantization awq",
        )
    return None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._awq import AWQ

    return AWQ(config or {})
