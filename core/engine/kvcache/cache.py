"""The KV cache's books: block tables over the device pool, the prefix cache and the host pool. No torch, no tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from collections.abc import Sequence as Many
from typing import Generic, TypeVar

from engine.config import CacheConfig
from engine.kvcache.claims import Claims
from engine.kvcache.host import HostPool
from engine.kvcache.pool import BlockPool
from engine.kvcache.prefix import PrefixHasher
from engine.kvcache.reclaim import Reclaim
from engine.kvcache.table import BlockTable
from engine.plugin.request import MultimodalItem

W = TypeVar("W")


class KVCache(Generic[W]):
    """Gives block tables their pages.

    ``W`` is what waits for blocks that are being computed (the scheduler's sequences).
    """

    def __init__(self, config: CacheConfig) -> None:
        self.block_size = config.block_size
        self.prefix_caching = config.prefix_caching
        self.pool = BlockPool(config.pages)
        self.host = HostPool(config.host_pages)
        self.claims: Claims[W] = Claims()
        self._hasher = PrefixHasher(config.block_size)

    def table(
        self, tokens: list[int], adapter: str | None, salt: str | None, items: Many[MultimodalItem] = ()
    ) -> BlockTable:
        """An empty table for a sequence whose growing token list is ``tokens``."""
        return BlockTable(tokens, self._hasher.root(adapter, salt), items)

    def pages_for(self, tokens: int) -> int:
        """Pages that ``tokens`` tokens occupy."""
        return -(-tokens // self.block_size)

    def match(self, table: BlockTable) -> list[int]:
        """The cached pages of the longest known prefix. One token at least is left to compute, for its logits."""
        if not self.prefix_caching:
            return []
        reusable = (len(table.tokens) - 1) // self.block_size
        self._digest(table, reusable)
        pages: list[int] = []
        for index in range(reusable):
            page = self.pool.find(table.digests[index])
            if page is None:
                break
            pages.append(page)
        return pages

    def pending(self, table: BlockTable, matched: int) -> bytes | None:
        """The last of the blocks that follow ``matched`` cached ones and that another table is computing now."""
        last = None
        for index in range(matched, (len(table.tokens) - 1) // self.block_size if self.prefix_caching else 0):
            if table.digests[index] not in self.claims:
                break
            last = table.digests[index]
        return last

    def still_short(self, table: BlockTable, matched: int, tokens: int, headroom: int = 0) -> bool:
        """Whether :meth:`open` certainly leaves less than ``headroom`` pages (or fails).

        Told without matching again, from the ``matched`` blocks of an earlier attempt.
        """
        if matched < len(table.digests) and self.pool.find(table.digests[matched]) is not None:
            return False
        return self.pages_for(tokens) - matched + headroom > self.pool.free

    def shortage(self, matched: Many[int], tokens: int) -> int:
        """Pages missing to :meth:`open` a table of ``tokens`` tokens on the ``matched`` pages; ≤ 0: none."""
        idle = sum(1 for page in matched if self.pool.references(page) == 0)
        return self.pages_for(tokens) - len(matched) + idle - self.pool.free

    def open(self, table: BlockTable, matched: Many[int], tokens: int) -> bool:
        """Give an empty ``table`` the ``matched`` pages and new ones up to ``tokens`` tokens; False: too few are free."""
        if self.shortage(matched, tokens) > 0:
            return False
        self.pool.hold(matched)
        fresh = self.pool.allocate(self.pages_for(tokens) - len(matched))
        table.pages = [*matched, *fresh]
        table.published = len(matched)
        return True

    def claim(self, table: BlockTable) -> None:
        """Let others wait for the full blocks that ``table`` is about to compute."""
        if self.prefix_caching:
            table.claimed = len(table.tokens) // self.block_size
            self._digest(table, table.claimed)
            for digest in table.digests[table.published : table.claimed]:
                self.claims.claim(digest, table)

    def grow(self, table: BlockTable, tokens: int) -> bool:
        """Have pages for ``tokens`` tokens; False (nothing changed) where they are missing."""
        missing = self.pages_for(tokens) - len(table.pages)
        if missing > 0:
            if missing > self.pool.free:
                return False
            table.pages += self.pool.allocate(missing)
        return True

    def publish(self, table: BlockTable, computed: int) -> None:
        """The first ``computed`` tokens are computed: make their full blocks findable."""
        full = computed // self.block_size
        if not self.prefix_caching or full <= table.published:
            return
        self._digest(table, full)
        for index in range(table.published, full):
            self.pool.publish(table.pages[index], table.digests[index])
            self.claims.settle(table.digests[index], table)
        table.published = full

    def close(self, table: BlockTable) -> None:
        """Give all pages back; the last blocks are the first to be evicted."""
        for digest in table.digests[table.published : table.claimed]:
            self.claims.settle(digest, table)
        self.pool.release(reversed(table.pages))
        self.host.release(table.host_pages)
        table.pages = []
        table.host_pages = []
        table.published = table.claimed = table.sent = 0

    def discard(self, table: BlockTable) -> None:
        """Give all pages back and forget their content, because it may be wrong."""
        self.pool.forget(table.pages)
        self.close(table)

    def swap_out(self, table: BlockTable, computed: int) -> list[tuple[int, int]]:
        """Move the pages of the first ``computed`` tokens to the host; returns the (device, host) copies to make."""
        pages = table.pages[: self.pages_for(computed)]
        host_pages = self.host.allocate(len(pages))
        self.close(table)
        table.host_pages = host_pages
        return list(zip(pages, host_pages, strict=True))

    def swap_in(self, table: BlockTable, computed: int, tokens: int) -> list[tuple[int, int]] | None:
        """Move a swapped-out table back, with room for ``tokens`` tokens; returns the (host, device) copies.

        None: too few pages are free. Blocks that the prefix cache still has are taken from there.
        """
        matched = self.match(table)[: computed // self.block_size]
        host_pages = table.host_pages
        if not self.open(table, matched, tokens):
            return None
        self.host.release(host_pages)
        table.host_pages = []
        return list(zip(host_pages[len(matched) :], table.pages[len(matched) : len(host_pages)], strict=True))

    def reclaim(self, keep: Collection[int]) -> Reclaim:
        """Counts what tables would give back if they were closed; the pages to ``keep`` do not count."""
        return Reclaim(self.pool, keep)

    def check(self, tables: Iterable[BlockTable]) -> None:
        """Raise ``RuntimeError`` where the books do not match ``tables``, which are all that exist."""
        tables = list(tables)
        self.pool.check(Counter(page for table in tables for page in table.pages))
        self.host.check([page for table in tables for page in table.host_pages])
        self.claims.check()

    def _digest(self, table: BlockTable, blocks: int) -> None:
        if len(table.digests) < blocks:
            self._hasher.extend(table.digests, table.root, table.tokens, table.items, blocks)
