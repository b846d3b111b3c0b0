"""Llama (1 to 3.3) and the many checkpoints of its shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.layers.rope import RopeSpec, context_length, read_rope
from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import Heads, model_info, read_heads, read_layer_count, same_layers

ENGINE_API = 1


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The keys of a Llama's config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    heads: Heads
    hidden_act: str
    rms_norm_eps: float
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    max_position_embeddings: int
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> LlamaConfig:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        heads = read_heads(reader, hidden)
        length = reader.integer("max_position_embeddings", 2048)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size"),
            num_hidden_layers=read_layer_count(reader),
            heads=heads,
            hidden_act=reader.text("hidden_act", "silu"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            attention_bias=reader.flag("attention_bias", False),
            mlp_bias=reader.flag("mlp_bias", False),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            max_position_embeddings=length,
            rope=read_rope(config, head_dim=heads.dim, max_position=length),
        )


class LlamaArchitecture(ModelArchitecture):
    """LlamaForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Full attention in every layer."""
        c = LlamaConfig.read(config)
        length = context_length(config, c.max_position_embeddings)
        return model_info(
            config, "LlamaForCausalLM", same_layers(c.num_hidden_layers, c.heads), vocab=c.vocab_size, hidden=c.hidden_size,
            length=length, tied=c.tie_word_embeddings, eos=(2,), bos=1,
        )  # fmt: skip

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.llama import Llama

        return Llama(context, LlamaConfig.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return LlamaArchitecture()
