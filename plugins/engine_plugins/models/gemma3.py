"""Gemma 3 (text): windows in five layers of six, a rotary base for each kind of layer."""

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
class Gemma3Config:
    """The keys of a Gemma 3's text configuration. ``sliding``: per layer, whether it attends through the window."""

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
    full_rope: RopeSpec
    sliding_rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> Gemma3Config:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        if reader.flag("use_bidirectional_attention", False):
            raise reader.complaint("use_bidirectional_attention", True, "false: only causal attention is served")
        hidden = reader.integer("hidden_size", 2304)
        heads = read_heads(reader, hidden, queries=8, kv=4, dim=256)
        length = reader.integer("max_position_embeddings", 131_072)
        count = read_layer_count(reader, 26)
        period = reader.integer("sliding_window_pattern", 6)
        full, sliding = _ropes(config, heads.dim, length)
        return cls(
            vocab_size=reader.integer("vocab_size", 262_208),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size", 9216),
            heads=heads,
            hidden_activation=reader.text("hidden_activation", "gelu_pytorch_tanh"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            attention_bias=reader.flag("attention_bias", False),
            tie_word_embeddings=reader.flag("tie_word_embeddings", True),
            max_position_embeddings=length,
            query_pre_attn_scalar=reader.number("query_pre_attn_scalar", 256),
            sliding_window=reader.optional_integer("sliding_window", None if "sliding_window" in config else 4096),
            sliding=sliding_from(reader, count, tuple((index + 1) % period != 0 for index in range(count))),
            final_logit_softcapping=reader.optional_number("final_logit_softcapping"),
            attn_logit_softcapping=reader.optional_number("attn_logit_softcapping"),
            full_rope=full,
            sliding_rope=sliding,
        )


def _ropes(config: dict[str, Any], head_dim: int, length: int) -> tuple[RopeSpec, RopeSpec]:
    """The embeddings of full and of sliding layers; the older keys scale only the full ones."""
    full = read_rope(config, head_dim=head_dim, max_position=length, theta=1_000_000.0, layer_type="full_attention")
    local = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    theta = ConfigReader(config).number("rope_local_base_freq", 10_000.0)
    parameters = config.get("rope_parameters")
    if isinstance(parameters, dict) and "sliding_attention" not in parameters:
        del local["rope_parameters"]
    sliding = read_rope(local, head_dim=head_dim, max_position=length, theta=theta, layer_type="sliding_attention")
    return full, sliding


def describe_gemma3(config: dict[str, Any], text: dict[str, Any], architecture: str) -> ModelInfo:
    """The facts of the text model ``text`` within ``config``. The stated length is the scaled one already."""
    c = Gemma3Config.read(text)
    scale, cap = c.query_pre_attn_scalar**-0.5, c.attn_logit_softcapping
    layers = tuple(
        AttentionSpec(c.heads.queries, c.heads.kv, c.heads.dim, scale, c.sliding_window if slides else None, cap) for slides in c.sliding
    )
    return model_info(
        config,
        architecture,
        layers,
        vocab=c.vocab_size,
        hidden=c.hidden_size,
        length=context_length(text, c.max_position_embeddings, scaled=False),
        tied=c.tie_word_embeddings,
        eos=(1,),
        bos=2,
    )


class Gemma3Architecture(ModelArchitecture):
    """Gemma3ForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """Windows where the layer slides."""
        return describe_gemma3(config, config, "Gemma3ForCausalLM")

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.gemma3 import Gemma3

        return Gemma3(context, Gemma3Config.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Gemma3Architecture()
