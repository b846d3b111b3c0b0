"""What the Gemma networks have in common."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from engine.layers.decoder import RotaryAttention, RotaryDecoder, SandwichBlock
from engine.layers.mlp import GatedMLP
from engine.layers.norm import RMSNorm

if TYPE_CHECKING:
    from engine.layers.rope import RopeSpec
    from engine.plugin import ModelContext
    from engine_plugins.models.gemma2 import Gemma2Config
    from engine_plugins.models.gemma3 import Gemma3Config


class GemmaDecoder(RotaryDecoder):
    """Scaled embedding, blocks between norms, capped head. ``normed``: queries and keys are normalised."""

    def __init__(self, context: ModelContext, config: Gemma2Config | Gemma3Config, rope: RopeSpec, *, normed: bool) -> None:
        hidden, bias = config.hidden_size, config.attention_bias
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps, offset=1.0)

        def block(index: int) -> SandwichBlock:
            attention = RotaryAttention(context, index, hidden, bias=bias, output_bias=bias, norm=norm if normed else None)
            mlp = GatedMLP(context, f"model.layers.{index}.mlp", hidden, config.intermediate_size, config.hidden_activation)
            return SandwichBlock(context, index, hidden, attention, mlp, norm)

        # Gemma was trained with the scale rounded to the activations' dtype.
        scale = hidden**0.5
        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=rope, block=block, norm=norm, scale=scale)
        self.cap = config.final_logit_softcapping

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        return logits if self.cap is None else self.context.ops.soft_cap(logits, self.cap)
