"""ModelOpt checkpoints: 8- and 4-bit floats, 4- and 8-bit integers, as hf_quant_config.json or config.json says."""

from __future__ import annotations

from typing import Any

from engine.plugin import Checkpoint, QuantizationFacts, Quantizer, hookimpl

from ._config import required
from ._modelopt import NVFP4S, read_modelopt

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("hf_quant_config.json",), dtypes=("bfloat16", "float16"), successors=("nvfp4",))


@hookimpl
def engine_create_quantizer(checkpoint: Checkpoint, config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    return read_modelopt(required(config, "modelopt", "--quantization fp8"), checkpoint.config_path)


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str) -> str | None:
    """A side file of ModelOpt names no method but its producer."""
    producer = config.get("producer")
    if method or not isinstance(producer, dict) or producer.get("name") != "modelopt":
        return None
    algorithm = config["quantization"].get("quant_algo") if isinstance(config.get("quantization"), dict) else None
    return None if isinstance(algorithm, str) and algorithm.upper() in NVFP4S else "its producer is modelopt"
