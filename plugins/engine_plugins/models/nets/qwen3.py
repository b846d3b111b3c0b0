"""The Qwen3 network (arXiv 2505.09388)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.layers.decoder import PreNormBlock, RotaryAttention, RotaryDecoder
from engine.layers.mlp import GatedMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models._qwen import QwenConfig


class Qwen3(RotaryDecoder):
    """Rotary grouped-query attention on queries and keys normalised per head; a gated feed-forward."""

    def __init__(self, context: ModelContext, config: QwenConfig) -> None:
        hidden, bias = config.hidden_size, config.attention_bias
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps)

        def block(index: int) -> PreNormBlock:
            attention = RotaryAttention(context, index, hidden, bias=bias, output_bias=bias, norm=norm)
            mlp = GatedMLP(context, f"model.layers.{index}.mlp", hidden, config.intermediate_size, config.hidden_act)
            return PreNormBlock(context, index, hidden, attention, mlp, norm)

        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.rope, block=block, norm=norm)
