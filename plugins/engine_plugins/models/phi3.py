"""Phi-3 and Phi-4 (text): fused projections, LongRoPE, partial rotation."""

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
class Phi3Config:
    """The keys of a Phi-3's config.json."""

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
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> Phi3Config:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        heads = read_heads(reader, hidden)
        length = reader.integer("max_position_embeddings", 4096)
        # The first releases called their LongRoPE "su", one of them "yarn".
        rope = read_rope(config, head_dim=heads.dim, max_position=length, original=4096, aliases={"yarn": "longrope"})
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
            rope=rope,
        )


class Phi3Architecture(ModelArchitecture):
    """Phi3ForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """One window for all layers, where there is one."""
        c = Phi3Config.read(config)
        return model_info(
            config,
            "Phi3ForCausalLM",
            same_layers(c.num_hidden_layers, c.heads, window=c.sliding_window),
            vocab=c.vocab_size,
            hidden=c.hidden_size,
            length=context_length(config, c.max_position_embeddings, scaled=c.rope.type != "longrope"),
            tied=c.tie_word_embeddings,
            eos=(32000,),
            bos=1,
        )

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.phi3 import Phi3

        return Phi3(context, Phi3Config.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Phi3Architecture()
