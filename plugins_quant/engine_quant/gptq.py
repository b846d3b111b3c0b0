"""GPTQ checkpoints of 2, 3, 4 and 8 bits, with act-order, GPTQModel's rules per module, and format gptq or gptq_v2."""

from __future__ import annotations

from typing import Any

from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(
        files=("quantize_config.json",), dtypes=("float16",), successors=("marlin", "gptq_marlin_24", "gptq_marlin", "ipex")
    )


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """A quantize_config.json that names no method, but has the keys of one."""
    return "it has bits and desc_act" if not method and "bits" in config and "desc_act" in config else None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._gptq import GPTQ

    return GPTQ(config or {})
