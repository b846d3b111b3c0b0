"""A configuration and a vocabulary as a GGUF file's metadata: the inverse of ``config`` and ``vocabulary``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.plugin import SourceModel

from .encode import Entry
from .families import Family
from .rope_entries import cannot, describe_rope
from .vocabulary_entries import vocabulary_entries
from .written import family_of

#: general.file_type of files whose matrices are mostly of one type.
_FILE_TYPES = {"Q4_0": 2, "Q8_0": 7}
#: The activation that a family means without saying it, with what it is called where it is said.
_ACTIVATIONS = {"gpt2": "gelu_new", "gptneox": "gelu", "gemma2": "gelu_pytorch_tanh", "gemma3": "gelu_pytorch_tanh"}
_SPELLED = ("hidden_activation", "hidden_act", "activation_function")


@dataclass(frozen=True)
class Described:
    """``tensors``: factors of rotary frequencies by the tensor that has them. ``notes``: what other programs will not know."""

    metadata: dict[str, Entry]
    tensors: dict[str, list[float]]
    notes: tuple[str, ...]


def describe_model(model: SourceModel, kind: str) -> Described:
    """Raises :class:`ConfigError` naming what of the configuration GGUF cannot say."""
    config = model.config
    name, family = family_of(config)
    _check(name, family, config)
    metadata: dict[str, Entry] = {
        "general.architecture": name, "general.name": Path(model.checkpoint.model).name, "general.type": "model",
        "general.file_type": _FILE_TYPES[kind], "general.quantization_version": 2,
    }  # fmt: skip
    for key, spelled in family.keys.items():
        value = _value(config, key, spelled, metadata)
        if isinstance(value, bool | int | float):
            metadata[f"{name}.{key}"] = float(value) if key.endswith(("epsilon", "base", "base_swa", "softcapping")) else value
    _describe_heads(name, config, metadata)
    tensors = describe_rope(name, config, metadata) if family.rope else {}
    entries, notes = vocabulary_entries(Path(model.checkpoint.tokenizer_path), model.info)
    return Described(metadata | entries, tensors, notes)


def _check(name: str, family: Family, config: dict[str, Any]) -> None:
    """Refuse what the format cannot express and readers would take for granted otherwise."""
    found = next((config[key] for key in _SPELLED if config.get(key) is not None), None)
    usual = _ACTIVATIONS.get(name, "silu")
    if found not in (None, usual):
        raise cannot("the activation", found, usual)
    for key, value in family.fixed.items():
        if key not in family.keys.values() and config.get(key, value) != value:
            raise cannot(key, config[key], value)
    if config.get("mlp_only_layers") or config.get("decoder_sparse_step", 1) != 1:
        raise cannot("mlp_only_layers or decoder_sparse_step", config.get("mlp_only_layers") or config["decoder_sparse_step"], "neither")


def _value(config: dict[str, Any], key: str, spelled: str, metadata: dict[str, Entry]) -> Any:
    """A key of the configuration, wherever it may stand."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if key in ("rope.local.freq_base", "rope.freq_base_swa"):
        return config.get(spelled) or rope.get("sliding_attention", {}).get("rope_theta") if key == "rope.freq_base_swa" else None
    if key == "rope.freq_base":
        whole = rope.get("full_attention", rope)
        return float(config.get(spelled) or config.get("rope_theta") or whole.get("rope_theta") or 10_000.0)
    if spelled == "n_inner" and config.get(spelled) is None:
        return 4 * config["n_embd"]
    if spelled == "num_experts":
        return config.get(spelled, config.get("num_local_experts"))
    if spelled == "use_parallel_residual":
        return config.get(spelled, True)
    if spelled == "num_key_value_heads":
        return config.get(spelled) or config.get("num_attention_heads")
    return config.get(spelled)


def _describe_heads(name: str, config: dict[str, Any], metadata: dict[str, Entry]) -> None:
    heads = int(config.get("num_attention_heads") or config["n_head"])
    hidden = int(config.get("hidden_size") or config["n_embd"])
    size = int(config.get("head_dim") or hidden // heads)
    if size != hidden // heads or f"{name}.attention.key_length" in metadata:
        metadata |= {f"{name}.attention.key_length": size, f"{name}.attention.value_length": size}
    rope = config.get("rope_parameters") or {}
    partial = config.get("rotary_pct") or config.get("partial_rotary_factor") or rope.get("partial_rotary_factor")
    if name == "gptneox" or partial not in (None, 1.0):
        metadata[f"{name}.rope.dimension_count"] = int(size * (0.25 if partial is None else partial))
    elif name not in ("gpt2", "gptneox"):
        metadata[f"{name}.rope.dimension_count"] = size
    if name == "gemma3":
        metadata[f"{name}.attention.sliding_window_pattern"] = _pattern(config)
    scale = config.get("query_pre_attn_scalar")
    if name in ("gemma2", "gemma3") and scale not in (None, _query_scale(name, config, hidden // heads, size)):
        raise cannot("query_pre_attn_scalar", scale, size)


def _query_scale(name: str, config: dict[str, Any], wide: int, size: int) -> int:
    return wide if config.get("num_hidden_layers") == {"gemma2": 46, "gemma3": 62}[name] else size


def _pattern(config: dict[str, Any]) -> int:
    """Every which layer sees all tokens."""
    types = config.get("layer_types")
    if not types:
        return int(config.get("sliding_window_pattern") or 6)
    first = types.index("full_attention") + 1 if "full_attention" in types else len(types) + 1
    if [kind == "full_attention" for kind in types] != [(i + 1) % first == 0 for i in range(len(types))]:
        raise cannot("layer_types", types, f"every {first}th layer full")
    return int(first)
