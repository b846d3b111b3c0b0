"""Finds nothing and keeps nothing: the smallest KV connector, named example."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.plugin import KVConnector, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

ENGINE_API = 1


class NoTransfer(KVConnector):
    """Every request is computed here."""

    def matched(self, token_ids: Sequence[int], computed: int) -> int:
        return 0

    def load(self, data: bytes, caches: Sequence[Tensor]) -> None:
        """Nothing was promised."""

    def save(self, data: bytes, caches: Sequence[Tensor]) -> None:
        """Nothing is kept."""


@hookimpl
def engine_create_kv_connector() -> KVConnector:
    return NoTransfer()
