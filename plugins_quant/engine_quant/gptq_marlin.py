"""Symmetric GPTQ checkpoints of 4 and 8 bits, zero points implied; the name of their fast path on NVIDIA GPUs."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError
from engine.plugin import DeviceFacts, QuantizationFacts, Quantizer, hookimpl

ENGINE_API = 1

_GROUPS = (-1, 32, 64, 128)


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("quantize_config.json",), dtypes=("float16", "bfloat16"), successors=("marlin", "gptq_marlin_24"))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None, device: DeviceFacts) -> str | None:
    """Checkpoints of gptq: by itself on CUDA, anywhere where it is asked for."""
    if method != "gptq" or asked not in (None, "marlin", "gptq_marlin") or (asked is None and device.name != "cuda"):
        return None
    misfit = _misfit(config)
    if misfit and asked == "gptq_marlin":
        raise ConfigError(f"--quantization gptq_marlin: the checkpoint's {misfit}.", fix="--quantization gptq")
    return None if misfit else "symmetric, 4 or 8 bits"


def _misfit(config: dict[str, Any]) -> str | None:
    """What of the config this method does not read."""
    if config.get("checkpoint_format", "gptq") not in ("gptq", "gptq_v2", None):
        return f"checkpoint_format is {config['checkpoint_format']!r}; it must be gptq or gptq_v2"
    if config.get("bits") not in (4, 8):
        return f"bits is {config.get('bits')!r}; it must be 4 or 8"
    if config.get("sym", True) is not True:
        return f"sym is {config['sym']!r}; it must be true"
    if config.get("group_size", -1) not in _GROUPS:
        return f"group_size is {config['group_size']!r}; it must be one of {', '.join(map(str, _GROUPS))}"
    return None


@hookimpl
def engine_create_quantizer(config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    from ._gptq import GPTQ

    return GPTQ(config or {}, implicit=True)
