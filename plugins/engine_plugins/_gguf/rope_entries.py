"""The scaling of rotary positions as a GGUF file's metadata and tensors."""

from __future__ import annotations

import math
from typing import Any

from engine.errors import ConfigError

from .encode import Entry


def cannot(what: str, value: object, usual: object) -> ConfigError:
    """The error for a configuration that readers of the format would not learn of."""
    return ConfigError(f"A GGUF file cannot say that {what} is {value!r}: readers expect {usual!r}.", fix="--method int8 or --method int4")


def describe_rope(name: str, config: dict[str, Any], metadata: dict[str, Entry]) -> dict[str, list[float]]:
    """The scaling of rotary positions: keys, and the factors by frequency of llama 3 and phi 3."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return {}
    prefix = f"{name}.rope.scaling"
    if kind in ("linear", "yarn"):
        metadata |= {f"{prefix}.type": kind, f"{prefix}.factor": float(rope["factor"])}
        if "original_max_position_embeddings" in rope:
            metadata[f"{prefix}.original_context_length"] = int(rope["original_max_position_embeddings"])
        return {}
    if kind == "llama3":
        return {"rope_freqs.weight": _llama3_factors(name, rope, metadata)}
    if kind == "longrope":
        original = config.get("original_max_position_embeddings") or rope["original_max_position_embeddings"]
        metadata[f"{prefix}.original_context_length"] = int(original)
        ratio = int(config["max_position_embeddings"]) / int(original)
        attention = rope.get("attention_factor") or (math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0)
        metadata[f"{prefix}.attn_factor"] = float(attention)
        return {f"rope_factors_{which}.weight": [float(each) for each in rope[f"{which}_factor"]] for which in ("long", "short")}
    raise cannot("rope_scaling", kind, "none, linear, yarn, llama3 or longrope")


def _llama3_factors(name: str, rope: dict[str, Any], metadata: dict[str, Entry]) -> list[float]:
    """What each frequency is divided by: long waves by the factor, short ones by 1, those between by a mixture."""
    size, base = int(str(metadata[f"{name}.rope.dimension_count"])), float(str(metadata[f"{name}.rope.freq_base"]))
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    original = float(rope["original_max_position_embeddings"])
    factors = []
    for index in range(0, size, 2):
        wave = 2 * math.pi * base ** (index / size)
        if wave < original / high:
            factors.append(1.0)
        elif wave > original / low:
            factors.append(factor)
        else:
            smooth = (original / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors
