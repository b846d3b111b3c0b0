"""GPT-NeoX, Pythia, Dolly: partial rotation, parallel residual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.layers.rope import RopeSpec, context_length, read_rope
from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import Heads, model_info, read_layer_count, read_whole_heads, same_layers

ENGINE_API = 1


@dataclass(frozen=True, slots=True)
class GPTNeoXConfig:
    """The keys of a GPT-NeoX's config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    heads: Heads
    hidden_act: str
    layer_norm_eps: float
    use_parallel_residual: bool
    attention_bias: bool
    tie_word_embeddings: bool
    max_position_embeddings: int
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> GPTNeoXConfig:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        heads = read_whole_heads(reader, "num_attention_heads", "hidden_size", hidden)
        length = reader.integer("max_position_embeddings", 2048)
        theta, partial = reader.number("rotary_emb_base", 10_000.0), reader.number("rotary_pct", 0.25)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size"),
            num_hidden_layers=read_layer_count(reader),
            heads=heads,
            hidden_act=reader.text("hidden_act", "gelu"),
            layer_norm_eps=reader.number("layer_norm_eps", 1e-5),
            use_parallel_residual=reader.flag("use_parallel_residual", True),
            attention_bias=reader.flag("attention_bias", True),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            max_position_embeddings=length,
            rope=read_rope(config, head_dim=heads.dim, max_position=length, theta=theta, partial=partial),
        )


class GPTNeoXArchitecture(ModelArchitecture):
    """GPTNeoXForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Full attention in every layer."""
        c = GPTNeoXConfig.read(config)
        return model_info(
            config,
            "GPTNeoXForCausalLM",
            same_layers(c.num_hidden_layers, c.heads),
            vocab=c.vocab_size,
            hidden=c.hidden_size,
            length=context_length(config, c.max_position_embeddings),
            tied=c.tie_word_embeddings,
            eos=(2,),
            bos=0,
        )

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.gpt_neox import GPTNeoX

        return GPTNeoX(context, GPTNeoXConfig.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return GPTNeoXArchitecture()
