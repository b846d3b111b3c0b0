"""The Llama network (arXiv 2302.13971, 2407.21783)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.layers.decoder import PreNormBlock, RotaryAttention, RotaryDecoder
from engine.layers.mlp import GatedMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models.llama import LlamaConfig


class Llama(RotaryDecoder):
    """Rotary grouped-query attention and a gated feed-forward, with or without biases."""

    def __init__(self, context: ModelContext, config: LlamaConfig) -> None:
        hidden = config.hidden_size
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps)

        def block(index: int) -> PreNormBlock:
            attention = RotaryAttention(context, index, hidden, bias=config.attention_bias, output_bias=config.attention_bias)
            name = f"model.layers.{index}.mlp"
            mlp = GatedMLP(context, name, hidden, config.intermediate_size, config.hidden_act, bias=config.mlp_bias)
            return PreNormBlock(context, index, hidden, attention, mlp, norm)

        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.rope, block=block, norm=norm)
