"""Gemma 2: soft caps, and a window in every other layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.layers.rope import RopeSpec, context_length, read_rope
from engine.plugin import AttentionSpec, Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import Heads, model_info, read_heads, read_layer_count, sliding_from

ENGINE_API = 1


@dataclass(frozen=True, slots=True)
class Gemma2Config:
    """The keys of a Gemma 2's config.json. ``sliding``: per layer, whether it attends through the window."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: Heads
    hidden_activation: str
    rms_norm_eps: float
    attention_bias: bool
    tie_word_embeddings: bool
    max_position_embeddings: int
    query_pre_attn_scalar: float
    sliding_window: int | None
    sliding: tuple[bool, ...]
    final_logit_softcapping: float | None
    attn_logit_softcapping: float | None
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> Gemma2Config:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        if reader.flag("use_bidirectional_attention", False):
            raise reader.complaint("use_bidirectional_attention", True, "false: only causal attention is served")
        hidden = reader.integer("hidden_size")
        heads = read_heads(reader, hidden, kv=4, dim=256)
        length = reader.integer("max_position_embeddings", 8192)
        count = read_layer_count(reader)
        window = reader.optional_integer("sliding_window", None if "sliding_window" in config else 4096)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size"),
            heads=heads,
            hidden_activation=reader.text("hidden_activation", "gelu_pytorch_tanh"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            attention_bias=reader.flag("attention_bias", False),
            tie_word_embeddings=reader.flag("tie_word_embeddings", True),
            max_position_embeddings=length,
            query_pre_attn_scalar=reader.number("query_pre_attn_scalar", 256),
            sliding_window=window,
            sliding=sliding_from(reader, count, tuple(index % 2 == 0 for index in range(count))),
            final_logit_softcapping=reader.optional_number("final_logit_softcapping", 30.0),
            attn_logit_softcapping=reader.optional_number("attn_logit_softcapping", 50.0),
            rope=read_rope(config, head_dim=heads.dim, max_position=length),
        )


class Gemma2Architecture(ModelArchitecture):
    """Gemma2ForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Soft caps everywhere, windows where the layer slides."""
        c = Gemma2Config.read(config)
        scale, cap = c.query_pre_attn_scalar**-0.5, c.attn_logit_softcapping
        layers = tuple(
            AttentionSpec(c.heads.queries, c.heads.kv, c.heads.dim, scale, c.sliding_window if slides else None, cap)
            for slides in c.sliding
        )
        return model_info(
            config,
            "Gemma2ForCausalLM",
            layers,
            vocab=c.vocab_size,
            hidden=c.hidden_size,
            length=context_length(config, c.max_position_embeddings),
            tied=c.tie_word_embeddings,
            eos=(1,),
            bos=2,
        )

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.gemma2 import Gemma2

        return Gemma2(context, Gemma2Config.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Gemma2Architecture()
