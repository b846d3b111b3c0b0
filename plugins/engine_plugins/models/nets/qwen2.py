"""The Qwen2 network (arXiv 2407.10671, 2412.15115)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.layers.decoder import PreNormBlock, RotaryAttention, RotaryDecoder
from engine.layers.mlp import GatedMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models._qwen import QwenConfig


class Qwen2(RotaryDecoder):
    """Rotary grouped-query attention with biased queries, keys and values; a gated feed-forward."""

    def __init__(self, context: ModelContext, config: QwenConfig) -> None:
        hidden = config.hidden_size
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps)

        def block(index: int) -> PreNormBlock:
            attention = RotaryAttention(context, index, hidden, bias=True)
            mlp = GatedMLP(context, f"model.layers.{index}.mlp", hidden, config.intermediate_size, config.hidden_act)
            return PreNormBlock(context, index, hidden, attention, mlp, norm)

        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.rope, block=block, norm=norm)
