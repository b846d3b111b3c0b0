"""Device pages 0 … N-1: reference counts, and an LRU of cached pages that nobody holds. All O(1) a page."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping


class BlockPool:
    """Who holds which page, and which page holds the content of which digest.

    A page is held (references > 0), idle (no reference, but cached content that a request may take again) or empty.
    ``allocate`` prefers empty pages, then evicts idle ones, the longest idle first.
    """

    __slots__ = ("_digest_of", "_empty", "_idle", "_page_of", "_references", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._references = [0] * size
        self._digest_of: list[bytes | None] = [None] * size
        self._page_of: dict[bytes, int] = {}
        self._empty = list(range(size - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Pages that ``allocate`` can give now."""
        return len(self._empty) + len(self._idle)

    @property
    def used(self) -> int:
        """Pages that somebody holds."""
        return self.size - self.free

    def find(self, digest: bytes) -> int | None:
        """The page whose content has this digest."""
        return self._page_of.get(digest)

    def references(self, page: int) -> int:
        """How many hold ``page``."""
        return self._references[page]

    def allocate(self, count: int) -> list[int]:
        """``count`` pages with one reference each and unspecified content. More than ``free`` is a ``ValueError``."""
        if count > self.free:
            raise ValueError(f"{count} pages asked, {self.free} free")
        pages = []
        for _ in range(count):
            page = self._empty.pop() if self._empty else self._evict()
            self._references[page] = 1
            pages.append(page)
        return pages

    def hold(self, pages: Iterable[int]) -> None:
        """One more reference to each of these cached pages."""
        for page in pages:
            if self._references[page] == 0:
                del self._idle[page]
            self._references[page] += 1

    def release(self, pages: Iterable[int]) -> None:
        """Drop one reference of each; what is released first is evicted first."""
        for page in pages:
            left = self._references[page] - 1
            if left < 0:
                raise ValueError(f"page {page} released more often than held")
            self._references[page] = left
            if left == 0:
                if self._digest_of[page] is None:
                    self._empty.append(page)
                else:
                    self._idle[page] = None

    def publish(self, page: int, digest: bytes) -> None:
        """Make the content of a held ``page`` findable; where another page has the same, that one stays."""
        if self._references[page] == 0:
            raise ValueError(f"page {page} is published but nobody holds it")
        if digest not in self._page_of and self._digest_of[page] is None:
            self._page_of[digest] = page
            self._digest_of[page] = digest

    def forget(self, pages: Iterable[int]) -> None:
        """The content of these held pages must not be found again."""
        for page in pages:
            digest = self._digest_of[page]
            if digest is not None:
                del self._page_of[digest]
                self._digest_of[page] = None

    def clear(self) -> None:
        """Forget all cached content; pages that are held stay held."""
        self._page_of.clear()
        self._digest_of = [None] * self.size
        self._empty.extend(self._idle)
        self._idle.clear()

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        digest = self._digest_of[page]
        if digest is not None:
            del self._page_of[digest]
            self._digest_of[page] = None
        return page

    def check(self, holders: Mapping[int, int]) -> None:
        """Raise ``RuntimeError`` where the books are wrong. ``holders``: page → references that the caller knows of."""
        wrong = []
        held = {page: count for page, count in enumerate(self._references) if count}
        if held != {page: count for page, count in holders.items() if count}:
            wrong.append("reference counts differ from the block tables")
        empty = set(self._empty)
        if len(empty) != len(self._empty) or empty & self._idle.keys():
            wrong.append("a page is free twice")
        if empty | self._idle.keys() != {page for page, count in enumerate(self._references) if count == 0}:
            wrong.append("the free pages are not those without references")
        if any(self._digest_of[page] is not None for page in empty) or any(
            self._digest_of[page] is None for page in self._idle
        ):
            wrong.append("idle and empty pages are mixed up")
        if {digest: page for page, digest in enumerate(self._digest_of) if digest is not None} != self._page_of:
            wrong.append("digests and pages do not match")
        if wrong:
            raise RuntimeError("block pool: " + "; ".join(wrong))
