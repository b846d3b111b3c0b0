"""ModelOpt's NVFP4: 4-bit floats with an 8-bit scale per 16 inputs and one per layer; activations rounded alike."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelFileError
from engine.plugin import Checkpoint, QuantizationFacts, Quantizer, hookimpl

from ._config import required
from ._modelopt import NVFP4S, algorithm_of, read_modelopt

ENGINE_API = 1


@hookimpl
def engine_describe_quantization() -> QuantizationFacts:
    """See the specification."""
    return QuantizationFacts(files=("hf_quant_config.json",), dtypes=("bfloat16", "float16"))


@hookimpl
def engine_claim_quantization(config: dict[str, Any], method: str, asked: str | None) -> str | None:
    """ModelOpt's checkpoints of this family, unless --quantization names ModelOpt itself."""
    producer = config.get("producer")
    own = method == "modelopt" or (not method and isinstance(producer, dict) and producer.get("name") == "modelopt")
    if not own or asked == "modelopt":
        return None
    inner = config.get("quantization")
    algorithm = (inner if isinstance(inner, dict) else config).get("quant_algo")
    return f"quant_algo is {algorithm}" if isinstance(algorithm, str) and algorithm.upper() in NVFP4S else None


@hookimpl
def engine_create_quantizer(checkpoint: Checkpoint, config: dict[str, Any] | None) -> Quantizer:
    """See the specification."""
    config = required(config, "nvfp4")
    if (found := algorithm_of(config)) not in NVFP4S:
        raise ModelFileError(f"quant_algo is {found!r}; nvfp4 reads {', '.join(NVFP4S)}.", fix="--quantization modelopt")
    return read_modelopt(config, checkpoint.config_path)
