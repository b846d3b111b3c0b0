"""One sequence's pages."""

from __future__ import annotations

from collections.abc import Sequence as Many

from engine.plugin.request import MultimodalItem


class BlockTable:
    """Which pages hold the KV of which tokens: page ``i`` holds positions [i·block_size, (i+1)·block_size).

    ``tokens`` is the sequence's own growing list. ``digests`` are those of its full blocks as far as they were needed:
    blocks before ``published`` can be found in the pool, further ones before ``claimed`` are being computed for all who
    want them. ``sent`` pages are known to the workers. ``host_pages`` hold the content while it is swapped out.
    """

    __slots__ = ("claimed", "digests", "host_pages", "items", "pages", "published", "root", "sent", "tokens")

    def __init__(self, tokens: list[int], root: bytes, items: Many[MultimodalItem] = ()) -> None:
        self.tokens = tokens
        self.root = root
        self.items = items
        self.digests: list[bytes] = []
        self.pages: list[int] = []
        self.host_pages: list[int] = []
        self.published = 0
        self.claimed = 0
        self.sent = 0
