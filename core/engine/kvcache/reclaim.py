"""How many pages become free when tables are closed: shared pages only with their last holder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from engine.kvcache.pool import BlockPool
from engine.kvcache.table import BlockTable


class Reclaim:
    """Add tables; ``pages`` is what closing all of them frees, beside the pages to ``keep``."""

    __slots__ = ("_held", "_keep", "_pool", "pages")

    def __init__(self, pool: BlockPool, keep: Collection[int]) -> None:
        self._pool = pool
        self._keep = frozenset(keep)
        self._held: Counter[int] = Counter()
        self.pages = 0

    def add(self, table: BlockTable) -> None:
        """One more table to close."""
        for page in table.pages:
            self._held[page] += 1
            self.pages += self._held[page] == self._pool.references(page) and page not in self._keep
