"""HQQ checkpoints of 1 to 8 bits with groups along the inputs or the outputs, one configuration or one per kind of layer."""

from __future__ import annotations

from typing import Any

from engine.plugin import QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quantize_config.json",), dtypes=("float16", "bfloat16"))


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._hqq import HQQ

    return HQQ(config or {})
