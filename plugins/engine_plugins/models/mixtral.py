"""Mixtral: a Mistral whose feed-forward blocks are mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.layers.rope import RopeSpec, context_length, read_rope
from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import Heads, model_info, read_experts, read_heads, read_layer_count, same_layers

ENGINE_API = 1


@dataclass(frozen=True, slots=True)
class MixtralConfig:
    """The keys of a Mixtral's config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    heads: Heads
    hidden_act: str
    rms_norm_eps: float
    tie_word_embeddings: bool
    max_position_embeddings: int
    sliding_window: int | None
    num_local_experts: int
    num_experts_per_tok: int
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> MixtralConfig:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        heads = read_heads(reader, hidden, kv=8)
        length = reader.integer("max_position_embeddings", 4096 * 32)
        experts, chosen = read_experts(reader, "num_local_experts", 8, 2)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size"),
            num_hidden_layers=read_layer_count(reader),
            heads=heads,
            hidden_act=reader.text("hidden_act", "silu"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-5),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            max_position_embeddings=length,
            sliding_window=reader.optional_integer("sliding_window"),
            num_local_experts=experts,
            num_experts_per_tok=chosen,
            rope=read_rope(config, head_dim=heads.dim, max_position=length, theta=1_000_000.0),
        )


class MixtralArchitecture(ModelArchitecture):
    """MixtralForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """One window for all layers, where there is one."""
        c = MixtralConfig.read(config)
        return model_info(
            config,
            "MixtralForCausalLM",
            same_layers(c.num_hidden_layers, c.heads, window=c.sliding_window),
            vocab=c.vocab_size,
            hidden=c.hidden_size,
            length=context_length(config, c.max_position_embeddings),
            tied=c.tie_word_embeddings,
            eos=(2,),
            bos=1,
            experts=c.num_local_experts,
        )

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.mixtral import Mixtral

        return Mixtral(context, MixtralConfig.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return MixtralArchitecture()
