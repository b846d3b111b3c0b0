"""Block tables over the pool, the prefix cache and the host."""

from __future__ import annotations

from engine.config import CacheConfig
from engine.kvcache.cache import KVCache


def cache(pages: int = 8, host_pages: int = 8) -> KVCache[str]:
    config = CacheConfig(
        block_size=4, dtype="auto", pages=pages, host_pages=host_pages, page_bytes=1, prefix_caching=True,
        memory_fraction=0.9,
    )  # fmt: skip
    return KVCache(config)


def test_a_table_takes_back_no_more_than_it_has_computed() -> None:
    books = cache()
    tokens = list(range(13))
    slow, fast = books.table(list(tokens), None, None), books.table(list(tokens), None, None)
    assert books.open(slow, [], 13)
    books.publish(slow, 6)
    out = books.swap_out(slow, 6)
    assert len(out) == 2
    assert books.open(fast, books.match(fast), 13)
    books.publish(fast, 13)
    back = books.swap_in(slow, 6, 13)
    assert slow.pages[0] == fast.pages[0], "the block that it had computed is shared"
    assert not set(slow.pages[1:]) & set(fast.pages), "the ones that it is going to write are its own"
    assert back == [(out[1][1], slow.pages[1])]
    books.check([slow, fast])


def test_what_does_not_fit_changes_nothing() -> None:
    books = cache(pages=3)
    first, second = books.table([1] * 9, None, None), books.table([2] * 5, None, None)
    assert books.open(first, [], 7)
    assert not books.open(second, [], 5)
    assert not books.grow(first, 13)
    assert books.grow(first, 8) and len(first.pages) == 2
    assert books.grow(first, 9) and len(first.pages) == 3
    books.check([first, second])
    out = books.swap_out(first, 9)
    assert [page for page, _ in out] and books.open(second, [], 5)
    assert books.swap_in(first, 9, 9) is None
    assert len(first.host_pages) == 3
    books.check([first, second])
    books.close(first)
    books.close(second)
    books.host.settle()
    books.check([])


def test_short_of_pages_is_told_without_matching_but_never_wrongly() -> None:
    books = cache(pages=4)
    tokens = list(range(13))
    runner, waiter = books.table(list(tokens), None, None), books.table(list(tokens), None, None)
    assert books.open(runner, [], 13)
    assert books.match(waiter) == []
    assert books.still_short(waiter, 0, 13)
    books.publish(runner, 13)
    assert not books.still_short(waiter, 0, 13), "there is something to match now"
    matched = books.match(waiter)
    assert len(matched) == 3 and books.shortage(matched, 13) == 1
    assert books.still_short(waiter, 3, 13)
    books.close(runner)
    assert not books.still_short(waiter, 3, 13) and books.shortage(matched, 13) == 0
