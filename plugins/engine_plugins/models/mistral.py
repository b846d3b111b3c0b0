"""Mistral (7B, Nemo, Small in text form): a Llama with a window."""

from __future__ import annotations

from typing import Any

from engine.layers.config import ConfigReader
from engine.layers.rope import context_length, read_rope
from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import model_info, read_heads, read_layer_count, same_layers
from engine_plugins.models.llama import LlamaConfig

ENGINE_API = 1


def read_mistral(config: dict[str, Any]) -> LlamaConfig:
    """A Mistral's keys with its own defaults; raises :class:`engine.errors.ModelFileError` naming the key."""
    reader = ConfigReader(config)
    hidden = reader.integer("hidden_size")
    heads = read_heads(reader, hidden, kv=8)
    length = reader.integer("max_position_embeddings", 4096 * 32)
    return LlamaConfig(
        vocab_size=reader.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=reader.integer("intermediate_size"),
        num_hidden_layers=read_layer_count(reader),
        heads=heads,
        hidden_act=reader.text("hidden_act", "silu"),
        rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
        attention_bias=False,
        mlp_bias=False,
        tie_word_embeddings=reader.flag("tie_word_embeddings", False),
        max_position_embeddings=length,
        rope=read_rope(config, head_dim=heads.dim, max_position=length),
    )


class MistralArchitecture(ModelArchitecture):
    """MistralForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """One window for all layers; null means none."""
        c = read_mistral(config)
        window = ConfigReader(config).optional_integer("sliding_window", None if "sliding_window" in config else 4096)
        return model_info(
            config,
            "MistralForCausalLM",
            same_layers(c.num_hidden_layers, c.heads, window=window),
            vocab=c.vocab_size,
            hidden=c.hidden_size,
            length=context_length(config, c.max_position_embeddings),
            tied=c.tie_word_embeddings,
            eos=(2,),
            bos=1,
        )

    def build(self, context: ModelContext) -> Model:
        """Llama's network: the window is the attention's affair."""
        from engine_plugins.models.nets.llama import Llama

        return Llama(context, read_mistral(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return MistralArchitecture()
