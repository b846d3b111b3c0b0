"""OPT (125M to 66B)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import Heads, model_info, read_layer_count, read_whole_heads, same_layers

ENGINE_API = 1


@dataclass(frozen=True, slots=True)
class OPTConfig:
    """The keys of an OPT's config.json. ``final_norm``: the norm after the last layer exists."""

    vocab_size: int
    hidden_size: int
    ffn_dim: int
    num_hidden_layers: int
    heads: Heads
    activation_function: str
    max_position_embeddings: int
    do_layer_norm_before: bool
    final_norm: bool
    word_embed_proj_dim: int
    enable_bias: bool
    layer_norm_elementwise_affine: bool
    tie_word_embeddings: bool

    @classmethod
    def read(cls, config: dict[str, Any]) -> OPTConfig:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        before = reader.flag("do_layer_norm_before", True)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            ffn_dim=reader.integer("ffn_dim"),
            num_hidden_layers=read_layer_count(reader),
            heads=read_whole_heads(reader, "num_attention_heads", "hidden_size", hidden),
            activation_function=reader.text("activation_function", "relu"),
            max_position_embeddings=reader.integer("max_position_embeddings", 2048),
            do_layer_norm_before=before,
            final_norm=before and not reader.flag("_remove_final_layer_norm", False),
            word_embed_proj_dim=reader.integer("word_embed_proj_dim", hidden),
            enable_bias=reader.flag("enable_bias", True),
            layer_norm_elementwise_affine=reader.flag("layer_norm_elementwise_affine", True),
            tie_word_embeddings=reader.flag("tie_word_embeddings", True),
        )


class OPTArchitecture(ModelArchitecture):
    """OPTForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Full attention in every layer; learned positions limit the length."""
        c = OPTConfig.read(config)
        return model_info(
            config,
            "OPTForCausalLM",
            same_layers(c.num_hidden_layers, c.heads),
            vocab=c.vocab_size,
            hidden=c.hidden_size,
            length=c.max_position_embeddings,
            tied=c.tie_word_embeddings,
            eos=(2,),
            bos=2,
        )

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.opt import OPT

        return OPT(context, OPTConfig.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return OPTArchitecture()
