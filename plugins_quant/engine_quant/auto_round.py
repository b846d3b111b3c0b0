"""AutoRound: integers packed as GPTQ or AWQ packs them, 4- and 8-bit floats as compressed-tensors; by packing_format."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.plugin import QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quantization_config.json",), dtypes=("bfloat16", "float16"))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str) -> str | None:
    """A side file that names AutoRound's packing."""
    found = config.get("packing_format")
    return f"packing_format is {found}" if not method and isinstance(found, str) and found.startswith("auto_round") else None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._auto_round import read_auto_round

    if config is None:
        raise ModelFileError("auto-round reads checkpoints that have a quantization_config.", fix="leave --quantization out")
    return read_auto_round(config)
