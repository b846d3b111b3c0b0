"""The Gemma 3 text network (arXiv 2503.19786)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from engine.layers.decoder import RotaryAttention, RotaryDecoder, SandwichBlock
from engine.layers.loading import NameRules
from engine.layers.mlp import GatedMLP
from engine.layers.norm import RMSNorm
from engine.layers.rotary import RotaryEmbedding, Rotation

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.gemma3 import Gemma3Config


class Gemma3(RotaryDecoder):
    """Scaled embedding, blocks between norms, normalised queries and keys; sliding layers rotate by a base of their own."""

    def __init__(self, context: ModelContext, config: Gemma3Config) -> None:
        hidden, bias = config.hidden_size, config.attention_bias
        norm = partial(RMSNorm, context, eps=config.rms_norm_eps, offset=1.0)

        def block(index: int) -> SandwichBlock:
            attention = RotaryAttention(context, index, hidden, bias=bias, output_bias=bias, norm=norm)
            mlp = GatedMLP(context, f"model.layers.{index}.mlp", hidden, config.intermediate_size, config.hidden_activation)
            return SandwichBlock(context, index, hidden, attention, mlp, norm)

        # Gemma was trained with the scale rounded to the activations' dtype.
        scale = hidden**0.5
        super().__init__(context, vocab=config.vocab_size, hidden=hidden, rope=config.full_rope, block=block, norm=norm, scale=scale)
        self.sliding_rotary = RotaryEmbedding(config.sliding_rope, context.longest, context.device, context.ops)
        self.sliding = [config.sliding[index] for index in self.layers]
        self.cap = config.final_logit_softcapping

    def rotations(self, batch: Batch, x: Tensor) -> list[Rotation]:
        full = self.rotary(batch.positions, x.dtype)
        sliding = self.sliding_rotary(batch.positions, x.dtype)
        return [sliding if slides else full for slides in self.sliding]

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        return logits if self.cap is None else self.context.ops.soft_cap(logits, self.cap)


class Gemma3InTower(Gemma3):
    """The text network of a checkpoint that holds a vision tower beside it, in the older and the newer spelling."""

    names = NameRules(
        renames=((r"^language_model\.", ""), (r"^model\.language_model\.", "model.")),
        leftovers=(r"(model\.)?(vision_tower|multi_modal_projector)\..*", r".*\.rotary_emb\.inv_freq"),
    )
