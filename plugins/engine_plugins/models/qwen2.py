"""Qwen2 and Qwen2.5: biased queries, keys and values."""

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
class Qwen2Config:
    """The keys of a Qwen2's config.json. ``windows``: per layer, None for full attention."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: Heads
    hidden_act: str
    rms_norm_eps: float
    tie_word_embeddings: bool
    max_position_embeddings: int
    windows: tuple[int | None, ...]
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any]) -> Qwen2Config:
        """Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        heads = read_heads(reader, hidden, kv=32)
        length = reader.integer("max_position_embeddings", 32768)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size"),
            heads=heads,
            hidden_act=reader.text("hidden_act", "silu"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            max_position_embeddings=length,
            windows=_windows(reader, read_layer_count(reader)),
            rope=read_rope(config, head_dim=heads.dim, max_position=length),
        )


def _windows(reader: ConfigReader, layers: int) -> tuple[int | None, ...]:
    """Layers from ``max_window_layers`` on have the window, where ``use_sliding_window`` says so."""
    window = reader.optional_integer("sliding_window", None if "sliding_window" in reader.values else 4096)
    if not reader.flag("use_sliding_window", False):
        window = None
    first = reader.integer("max_window_layers", 28, low=0)
    sliding = sliding_from(reader, layers, tuple(window is not None and i >= first for i in range(layers)))
    return tuple(window if slides else None for slides in sliding)


class Qwen2Architecture(ModelArchitecture):
    """Qwen2ForCausalLM."""

    def describe(self, config: dict[str, Any]) -> ModelInfo:
        """One spec per layer, with its window."""
        c = Qwen2Config.read(config)
        heads = c.heads
        layers = tuple(AttentionSpec(heads.queries, heads.kv, heads.dim, heads.dim**-0.5, window=window) for window in c.windows)
        return model_info(
            config, "Qwen2ForCausalLM", layers, vocab=c.vocab_size, hidden=c.hidden_size,
            length=context_length(config, c.max_position_embeddings), tied=c.tie_word_embeddings,
        )  # fmt: skip

    def build(self, context: ModelContext) -> Model:
        """The network."""
        from engine_plugins.models.nets.qwen2 import Qwen2

        return Qwen2(context, Qwen2Config.read(context.config))


@hookimpl
def engine_create_model() -> ModelArchitecture:
    """The architecture."""
    return Qwen2Architecture()
