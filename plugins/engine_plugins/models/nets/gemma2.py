"""The Gemma 2 network (arXiv 2408.00118)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine_plugins.models.nets._gemma import GemmaDecoder

if TYPE_CHECKING:
    from engine.plugin import ModelContext
    from engine_plugins.models.gemma2 import Gemma2Config


class Gemma2(GemmaDecoder):
    """Queries and keys as they are, one rotary base."""

    def __init__(self, context: ModelContext, config: Gemma2Config) -> None:
        super().__init__(context, config, config.rope, normed=False)
