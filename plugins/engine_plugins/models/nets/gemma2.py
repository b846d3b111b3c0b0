"""The Gemma 2 network (arXiv 2408.00118)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from engine.layers.decoder import RotaryAttention, RotaryDecoder, SandwichBlock
from engine.layers.mlp import GatedMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models.gemma2 import Gemma2Config


class Gemma2(RotaryDecoder):
    """Scaled embedding, blocks between norms, capped head."""

    def __init__(self, context: ModelContext, config: Gemma2Config) -> None:
        hidden, bias = config.hidden_size, config.attention_bias
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps, offset=1.0)

        def block(index: int) -> SandwichBlock:
            attention = RotaryAttention(context, index, hidden, bias=bias, output_bias=bias)
            mlp = GatedMLP(context, f"model.layers.{index}.mlp", hidden, config.intermediate_size, config.hidden_activation)
            return SandwichBlock(context, index, hidden, attention, mlp, norm)

        # Gemma was trained with the scale rounded to the activations' dtype.
        scale = hidden**0.5
        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.rope, block=block, norm=norm, scale=scale)
        self.cap = config.final_logit_softcapping

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        return logits if self.cap is None else self.context.ops.soft_cap(logits, self.cap)
