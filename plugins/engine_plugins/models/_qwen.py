"""What the Qwens have in common: the configuration of the dense ones, the facts that it gives, and the window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.layers.config import ConfigReader
from engine.layers.rope import RopeSpec, context_length, read_rope
from engine.plugin import AttentionSpec, ModelInfo
from engine_plugins.models._config import Heads, model_info, read_heads, read_layer_count, sliding_from


@dataclass(frozen=True, slots=True)
class QwenConfig:
    """The keys of a dense Qwen's config.json. ``windows``: per layer, None for full attention."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    heads: Heads
    hidden_act: str
    rms_norm_eps: float
    attention_bias: bool
    tie_word_embeddings: bool
    max_position_embeddings: int
    windows: tuple[int | None, ...]
    rope: RopeSpec

    @classmethod
    def read(cls, config: dict[str, Any], head_dim: int | None = None) -> QwenConfig:
        """``head_dim`` is the family's default. Raises :class:`engine.errors.ModelFileError` naming the key."""
        reader = ConfigReader(config)
        hidden = reader.integer("hidden_size")
        heads = read_heads(reader, hidden, kv=32, dim=head_dim)
        length = reader.integer("max_position_embeddings", 32768)
        return cls(
            vocab_size=reader.integer("vocab_size"),
            hidden_size=hidden,
            intermediate_size=reader.integer("intermediate_size"),
            heads=heads,
            hidden_act=reader.text("hidden_act", "silu"),
            rms_norm_eps=reader.number("rms_norm_eps", 1e-6),
            attention_bias=reader.flag("attention_bias", False),
            tie_word_embeddings=reader.flag("tie_word_embeddings", False),
            max_position_embeddings=length,
            windows=_windows(reader, read_layer_count(reader)),
            rope=read_rope(config, head_dim=heads.dim, max_position=length),
        )


def read_window(reader: ConfigReader) -> int | None:
    """The window of layers that have one; None where ``use_sliding_window`` does not say so."""
    window = reader.optional_integer("sliding_window", None if "sliding_window" in reader.values else 4096)
    return window if reader.flag("use_sliding_window", False) else None


def _windows(reader: ConfigReader, layers: int) -> tuple[int | None, ...]:
    """Layers from ``max_window_layers`` on have the window."""
    window = read_window(reader)
    first = reader.integer("max_window_layers", 28, low=0)
    sliding = sliding_from(reader, layers, tuple(window is not None and i >= first for i in range(layers)))
    return tuple(window if slides else None for slides in sliding)


def qwen_info(config: dict[str, Any], read: QwenConfig, architecture: str) -> ModelInfo:
    """One spec per layer, with its window."""
    heads = read.heads
    layers = tuple(AttentionSpec(heads.queries, heads.kv, heads.dim, heads.dim**-0.5, window=window) for window in read.windows)
    return model_info(
        config, architecture, layers, vocab=read.vocab_size, hidden=read.hidden_size,
        length=context_length(config, read.max_position_embeddings), tied=read.tie_word_embeddings,
    )  # fmt: skip
