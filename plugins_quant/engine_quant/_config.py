"""What methods that read quantized checkpoints alone share: their configuration must be there, activations are in 16 bits. Torch-free."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.plugin import QuantizationFacts

#: Activations in either 16-bit type.
SIXTEEN_BITS = QuantizationFacts(dtypes=("bfloat16", "float16"))


def required(config: dict[str, Any] | None, method: str, fix: str = "leave --quantization out") -> dict[str, Any]:
    """The checkpoint's quantization_config. Raises :class:`engine.errors.ModelFileError` where it has none."""
    if config is None:
        raise ModelFileError(f"{method} reads checkpoints that have a quantization_config.", fix=fix)
    return config
