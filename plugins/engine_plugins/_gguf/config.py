"""The configuration that a GGUF file's metadata stands for, in the spelling of config.json."""

from __future__ import annotations

from typing import Any

from .cursor import Values, refuse
from .families import Family
from .model import GgufModel

_MUST = ("block_count", "embedding_length", "attention.head_count", "context_length")
#: Layers of the two models whose queries are scaled by the hidden size per head instead of the head's own size.
_WIDE_QUERIES = {"gemma2": 46, "gemma3": 62}


def read_config(model: GgufModel) -> dict[str, Any]:
    """The whole configuration. Raises :class:`engine.errors.ModelFileError` naming file and key."""
    family, name = model.family(), model.architecture
    config: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.model_type, **family.fixed}
    for key in _MUST:
        model.integer(f"{name}.{key}", low=1)
    for key, spelled in family.keys.items():
        value = model.metadata.get(f"{name}.{key}")
        if value is not None:
            config[spelled] = _one(model, f"{name}.{key}", value)
    config["vocab_size"] = _vocabulary(model)
    config["dtype"] = _dtype(model)
    for role, key in (("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")):
        if f"tokenizer.ggml.{role}_token_id" in model.metadata:
            config[key] = model.integer(f"tokenizer.ggml.{role}_token_id")
    config["eos_token_id"] = _ends(model, config.get("eos_token_id"))
    _describe_heads(model, family, config)
    _describe_biases(model, family, config)
    if family.rope:
        _describe_rope(model, config)
    return config | overlay(model)


def overlay(model: GgufModel) -> dict[str, Any]:
    """What the tensors say, whatever a config.json beside the file says: types per layer, and whether the head is tied."""
    types = {place.name: place.entry.type.name for place in model.placed() if place.entry.type.plain is None}
    return {
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "quantization_config": {"quant_method": "gguf", "types": types},
    }


def _one(model: GgufModel, key: str, value: object) -> Any:
    """A value that is the same for all layers; some files have a list of it."""
    if isinstance(value, Values):
        entries = value.read() if value.count <= 100_000 else []
        if len(set(entries)) != 1:
            refuse(model.path, f"{key} differs between layers, which no architecture known here has")
        return entries[0]
    if isinstance(value, float):
        return float(f"{value:.8g}")  # 32 bits were meant as the decimal number
    return value


def _vocabulary(model: GgufModel) -> int:
    entry = model.tensors.get("token_embd.weight")
    if entry is not None:
        return entry.shape[0]
    tokens = model.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Values):
        refuse(model.path, "there is neither a tensor 'token_embd.weight' nor tokenizer.ggml.tokens")
    return tokens.count


def _dtype(model: GgufModel) -> str:
    """That of most of the bytes where they are plain; bfloat16 for quantized files, and for families that float16 overflows."""
    sizes: dict[str, int] = {}
    for entry in model.tensors.values():
        sizes[entry.type.name] = sizes.get(entry.type.name, 0) + entry.nbytes
    most = max(sizes, key=lambda name: sizes[name], default="F32")
    if most == "F16" and model.architecture.startswith("gemma"):
        return "bfloat16"
    return {"F32": "float32", "F16": "float16", "F64": "float64"}.get(most, "bfloat16")


def _ends(model: GgufModel, eos: int | None) -> Any:
    """All ids that end an output: end of sequence, of turn, of message."""
    ids = [] if eos is None else [eos]
    for role in ("eot", "eom"):
        key = f"tokenizer.ggml.{role}_token_id"
        if key in model.metadata:
            ids.append(model.integer(key))
    ids = list(dict.fromkeys(ids))
    return ids[0] if len(ids) == 1 else ids or None


def _describe_heads(model: GgufModel, family: Family, config: dict[str, Any]) -> None:
    name = model.architecture
    heads, _ = model.head_counts()
    hidden = model.integer(f"{name}.embedding_length")
    size = model.integer(f"{name}.attention.key_length", max(1, hidden // heads), low=1, high=65_536)
    if model.integer(f"{name}.attention.value_length", size) != size:
        refuse(model.path, f"{name}.attention.value_length differs from the key_length {size}, which no architecture known here has")
    if name in _WIDE_QUERIES:
        wide = model.integer(f"{name}.block_count") == _WIDE_QUERIES[name]
        config["query_pre_attn_scalar"] = hidden // heads if wide else size
    if name == "gemma3" and isinstance(pattern := model.metadata.get(f"{name}.attention.sliding_window_pattern"), int):
        config["sliding_window_pattern"] = pattern
    rotary = model.integer(f"{name}.rope.dimension_count", size, low=1, high=65_536)
    if family.rope and rotary != size:
        config["rotary_pct" if name == "gptneox" else "partial_rotary_factor"] = rotary / size
    elif name == "gptneox":
        config["rotary_pct"] = 1.0


def _describe_biases(model: GgufModel, family: Family, config: dict[str, Any]) -> None:
    """What a config.json says of biases, by the tensors that there are."""
    if family.model_type in ("llama", "qwen3", "qwen3_moe", "gemma2", "gemma3_text"):
        config["attention_bias"] = "blk.0.attn_q.bias" in model.tensors
    if family.model_type == "llama":
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in model.tensors
    if family.model_type == "gpt_neox":
        config["attention_bias"] = "blk.0.attn_qkv.bias" in model.tensors


def _describe_rope(model: GgufModel, config: dict[str, Any]) -> None:
    """``rope_scaling`` from the keys, or from the factors per frequency that llama 3 and phi 3 files carry as tensors."""
    name = model.architecture
    length = model.integer(f"{name}.context_length")
    original = model.integer(f"{name}.rope.scaling.original_context_length", length)
    kind = model.text(f"{name}.rope.scaling.type", "none")
    legacy = model.number(f"{name}.rope.scale_linear", 1.0)
    factor = model.number(f"{name}.rope.scaling.factor", legacy)
    if "rope_freqs.weight" in model.tensors:
        factors = model.floats("rope_freqs.weight")
        scaling: dict[str, Any] = {"long_factor": factors, "short_factor": factors, "attention_factor": 1.0}
        config["rope_scaling"] = {"rope_type": "longrope", "original_max_position_embeddings": length, **scaling}
    elif "rope_factors_long.weight" in model.tensors:
        pair = {f"{which}_factor": model.floats(f"rope_factors_{which}.weight") for which in ("long", "short")}
        config["rope_scaling"] = {"rope_type": "longrope", **pair}
        config["original_max_position_embeddings"] = original
        if f"{name}.rope.scaling.attn_factor" in model.metadata:
            config["rope_scaling"]["attention_factor"] = model.number(f"{name}.rope.scaling.attn_factor")
    elif kind == "yarn":
        config["rope_scaling"] = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    elif kind == "linear" or (kind == "none" and legacy != 1.0):
        config["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    elif kind != "none":
        refuse(model.path, f"{name}.rope.scaling.type is {kind!r}; known are none, linear, yarn, and longrope by its tensors")
