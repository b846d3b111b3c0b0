"""The Phi-3 network (arXiv 2404.14219, 2412.08905)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from engine.layers.decoder import PreNormBlock, RotaryAttention, RotaryDecoder
from engine.layers.mlp import GatedMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models.phi3 import Phi3Config


class Phi3(RotaryDecoder):
    """A Llama whose checkpoint holds the projections fused."""

    def __init__(self, context: ModelContext, config: Phi3Config) -> None:
        hidden = config.hidden_size
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps)

        def block(index: int) -> PreNormBlock:
            attention = RotaryAttention(context, index, hidden, fused=True)
            mlp = GatedMLP(context, f"model.layers.{index}.mlp", hidden, config.intermediate_size, config.hidden_act, fused=True)
            return PreNormBlock(context, index, hidden, attention, mlp, norm)

        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.rope, block=block, norm=norm)
