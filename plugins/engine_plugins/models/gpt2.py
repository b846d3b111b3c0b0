"""GPT-2 and the checkpoints of its shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.plugin import AttentionSpec, Model, ModelContext, ModelInfo, hookimpl
from engine.plugin.contracts.serving import ModelArchitecture
from engine_plugins.models._config import Heads, model_info, read_layer_count, read_whole_heads

ENGINE_API = 1


@dataclass(frozen=True, slots=True)
class GPT2Config:
    """The keys of a GPT-2's config.json. ``scales``: per layer, what multiplies Q·K."""

    vocab_size: int
    n_embd: int
    n_inner: int
    heads: Heads
    activation_function: str
    layer_norm_epsilon: float
    n_positions: int
    scales: tuple[float, ...]
    tie_word_embeddings: bool

    @classmethod
    def read(cls, config: dict[str, Any]) -> GPT2Config:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        if reader.flag("add_cross_attention", False):
            raise reader.complaint("add_cross_attention", True, "false: only decoders of their own are served")
        hidden = reader.integer("n_embd")
        heads = read_whole_heads(reader, "n_head", "n_embd", hidden)
        base = heads.dim**-0.5 if reader.flag("scale_attn_weights", True) else 1.0
        by_layer = reader.flag("scale_attn_by_inverse_layer_idx", False)
        count = read_layer_count(reader, key="n_layer")
        return cls(
            vocab_size=reader.integer("vocab_size"),
            n_embd=hidden,
            n_inner=reader.integer("n_inner", 4 * hidden),
            heads=heads,
            activation_function=reader.text("activation_function", "gelu_new"),
            layer_norm_epsilon=reader.number("layer_norm_epsilon", 1e-5),
            n_positions=reader.integer("n_positions", 1024),
            scales=tuple(base / (index + 1) if by_layer else base for index in range(count)),
            tie_word_embeddings=reader.flag("tie_word_embeddings", True),
        )


class GPT2Architecture(ModelArchitecture):
    """GPT2LMHeadModel."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Full attention in every layer; learned positions limit the length."""
        c = GPT2Config.read(config)
        return model_info(
            config,
            "GPT2LMHeadModel",
            tuple(AttentionSpec(c.heads.queries, c.heads.kv, c.heads.dim, scale) for scale in c.scales),
            vocab=c.vocab_size,
            hidden=c.n_embd,
            length=c.n_positions,
            tied=c.tie_word_embeddings,
            eos=(50256,),
            bos=50256,
        )

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.gpt2 import GPT2

        return GPT2(context, GPT2Config.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return GPT2Architecture()
