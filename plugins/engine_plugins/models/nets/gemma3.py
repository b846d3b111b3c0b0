"""The Gemma 3 text network (arXiv 2503.19786)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from engine.layers.loading import NameRules
from engine.layers.rotary import RotaryEmbedding, Rotation
from engine_plugins.models.nets._gemma import GemmaDecoder

if TYPE_CHECKING:
    from engine.plugin import Batch, ModelContext
    from engine_plugins.models.gemma3 import Gemma3Config


class Gemma3(GemmaDecoder):
    """Normalised queries and keys; sliding layers rotate by a base of their own."""

    def __init__(self, context: ModelContext, config: Gemma3Config) -> None:
        super().__init__(context, config, config.full_rope, normed=True)
        self.sliding_rotary = RotaryEmbedding(config.sliding_rope, context.longest, context.device, context.ops)
        self.sliding = [config.sliding[index] for index in self.layers]

    def rotations(self, batch: Batch, x: Tensor) -> list[Rotation]:
        full = self.rotary(batch.positions, x.dtype)
        sliding = self.sliding_rotary(batch.positions, x.dtype)
        return [sliding if slides else full for slides in self.sliding]


class Gemma3InTower(Gemma3):
    """The text network of a checkpoint that holds a vision tower beside it, in the older and the newer spelling."""

    names = NameRules(
        renames=((r"^language_model\.", ""), (r"^model\.language_model\.", "model.")),
        leftovers=(r"(model\.)?(vision_tower|multi_modal_projector)\..*", r".*\.rotary_emb\.inv_freq"),
    )
