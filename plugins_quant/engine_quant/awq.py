"""AWQ checkpoints, 4 and 8 bits with zero points: AutoAWQ's gemm, gemv and gemv_fast versions, llm-awq's packing."""

from __future__ import annotations

from typing import Any

from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(
        files=("quant_config.json", "quantize_config.json"), dtypes=("float16",), successors=("awq_marlin", "ipex")
    )


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """A side file that names no method, but has the keys of one."""
    return "it has w_bit" if not method and "w_bit" in config else None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._awq import AWQ

    return AWQ(config or {})
