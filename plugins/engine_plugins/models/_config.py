"""What the families' configurations have in common: heads, token ids, the facts that the engine asks for."""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.errors import ModelFileError
from engine.layers.config import MOST_LAYERS, ConfigReader
from engine.plugin import AttentionSpec, ModelInfo

#: What every model on the engine's layers can do.
SUPPORTS = frozenset({"tensor_parallel", "pipeline_parallel", "quantization", "speculation"})
LAYER_TYPES = ("full_attention", "sliding_attention")


class Heads(NamedTuple):
    """Attention heads of a layer."""

    queries: int
    kv: int
    dim: int


def read_heads(reader: ConfigReader, hidden: int, *, queries: int | None = None, kv: int | None = None, dim: int | None = None) -> Heads:
    """The heads; the arguments are the family's defaults (``kv`` None: as many as queries; ``dim`` None: hidden / heads)."""
    heads = reader.integer("num_attention_heads", queries, high=65536)
    default = heads if "num_key_value_heads" in reader.values else kv or heads
    kv_heads = reader.integer("num_key_value_heads", default, high=65536)
    if heads % kv_heads:
        raise reader.complaint("num_key_value_heads", kv_heads, f"a divisor of num_attention_heads ({heads})")
    if reader.values.get("head_dim") is None and dim is None and hidden % heads:
        raise reader.complaint("num_attention_heads", heads, f"a divisor of hidden_size ({hidden}), or head_dim given")
    return Heads(heads, kv_heads, reader.integer("head_dim", dim or hidden // heads, high=65536))


def read_whole_heads(reader: ConfigReader, key: str, size_key: str, hidden: int) -> Heads:
    """Heads of a family without grouped keys: they divide the hidden size among them."""
    heads = reader.integer(key, high=65536)
    if hidden % heads:
        raise reader.complaint(key, heads, f"a divisor of {size_key} ({hidden})")
    return Heads(heads, heads, hidden // heads)


def read_experts(reader: ConfigReader, key: str, count: int, chosen: int) -> tuple[int, int]:
    """The number of experts under ``key`` and ``num_experts_per_tok``, with the family's defaults."""
    experts = reader.integer(key, count, high=65536)
    return experts, reader.integer("num_experts_per_tok", min(chosen, experts), high=experts)


def read_layer_count(reader: ConfigReader, default: int | None = None, key: str = "num_hidden_layers") -> int:
    """The number of layers."""
    return reader.integer(key, default, high=MOST_LAYERS)


def sliding_from(reader: ConfigReader, layers: int, pattern: tuple[bool, ...]) -> tuple[bool, ...]:
    """Per layer whether it attends through a window: ``layer_types`` where it is given, else the family's ``pattern``."""
    types = reader.texts("layer_types", layers, LAYER_TYPES)
    return pattern if types is None else tuple(kind == "sliding_attention" for kind in types)


def same_layers(count: int, heads: Heads, *, window: int | None = None) -> tuple[AttentionSpec, ...]:
    """``count`` equal layers with the usual scale."""
    return (AttentionSpec(heads.queries, heads.kv, heads.dim, heads.dim**-0.5, window=window),) * count


def model_info(
    config: dict[str, Any], architecture: str, layers: tuple[AttentionSpec, ...],
    *, vocab: int, hidden: int, length: int, tied: bool, eos: tuple[int, ...] = (), bos: int | None = None, experts: int = 0,
) -> ModelInfo:  # fmt: skip
    """The facts of a native model. ``eos`` and ``bos`` are the family's, for configs that do not say."""
    reader = ConfigReader(config)
    return ModelInfo(
        architecture=architecture,
        vocab_size=vocab,
        hidden_size=hidden,
        layers=layers,
        max_model_len=length,
        dtype=checkpoint_dtype(config),
        logits_size=vocab,
        num_experts=experts,
        supports=SUPPORTS,
        tied_embeddings=tied,
        eos_token_ids=reader.integers("eos_token_id") if "eos_token_id" in config else eos,
        bos_token_id=reader.optional_integer("bos_token_id", low=0) if "bos_token_id" in config else bos,
    )


def checkpoint_dtype(config: dict[str, Any]) -> str:
    """``dtype``, or the older ``torch_dtype``; float32 where neither is given."""
    key = "dtype" if config.get("dtype") is not None else "torch_dtype"
    name = ConfigReader(config).text(key, "float32").removeprefix("torch.")
    if name not in ("float32", "float16", "bfloat16", "float64"):
        raise ModelFileError(f"config.json: {key} is {name!r}; it must be one of float32, float16, bfloat16, float64.")
    return name
