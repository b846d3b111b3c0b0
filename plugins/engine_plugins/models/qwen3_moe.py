"""Qwen3-MoE: Qwen3 with a mixture of experts in (most) layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.layers.rope import RopeSpec, context_length, read_rope
from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import Heads, model_info, read_experts, read_heads, read_layer_count, same_layers
from engine_plugins.models._qwen import read_window

ENGINE_API = 1


@dataclass(frozen=True, slots=True)
class Qwen3MoeConfig:
    """The keys of a Qwen3Moe's config.json. ``sparse``: per layer, whether it is a mixture."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: Heads
    hidden_act: str
    rms_norm_eps: float
    attention_bias: bool
    tie_word_embeddings: bool
    max_position_embeddings: int
    sliding_window: int | None
    sparse: tuple[bool, ...]
    moe_intermediate_size: int
    num_experts: int
    num_experts_per_tok: int
    norm_topk_prob: bool
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> Qwen3MoeConfig:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        heads = read_heads(reader, hidden, kv=4)
        length = reader.integer("max_position_embeddings", 32768)
        key = "num_local_experts" if "num_local_experts" in config else "num_experts"
        experts, chosen = read_experts(reader, key, 128, 8)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size"),
            heads=heads,
            hidden_act=reader.text("hidden_act", "silu"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            attention_bias=reader.flag("attention_bias", False),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            max_position_embeddings=length,
            sliding_window=read_window(reader),
            sparse=_sparse(reader),
            moe_intermediate_size=reader.integer("moe_intermediate_size", 768),
            num_experts=experts,
            num_experts_per_tok=chosen,
            norm_topk_prob=reader.flag("norm_topk_prob", False),
            rope=read_rope(config, head_dim=heads.dim, max_position=length),
        )


def _sparse(reader: ConfigReader) -> tuple[bool, ...]:
    """Per layer whether it is a mixture: every ``decoder_sparse_step``-th, but for ``mlp_only_layers``."""
    dense, step = reader.integers("mlp_only_layers"), reader.integer("decoder_sparse_step", 1)
    return tuple(i not in dense and (i + 1) % step == 0 for i in range(read_layer_count(reader)))


class Qwen3MoeArchitecture(ModelArchitecture):
    """Qwen3MoeForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """One window for all layers, where there is one."""
        c = Qwen3MoeConfig.read(config)
        return model_info(
            config,
            "Qwen3MoeForCausalLM",
            same_layers(len(c.sparse), c.heads, window=c.sliding_window),
            vocab=c.vocab_size,
            hidden=c.hidden_size,
            length=context_length(config, c.max_position_embeddings),
            tied=c.tie_word_embeddings,
            experts=c.num_experts if any(c.sparse) else 0,
        )

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.qwen3_moe import Qwen3Moe

        return Qwen3Moe(context, Qwen3MoeConfig.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Qwen3MoeArchitecture()
