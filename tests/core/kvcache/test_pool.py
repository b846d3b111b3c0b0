"""Pages: references, eviction order, and books that notice mistakes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.kvcache.host import HostPool
from engine.kvcache.pool import BlockPool


def test_empty_pages_go_before_cached_ones_and_the_longest_idle_before_the_rest() -> None:
    pool = BlockPool(4)
    pages = pool.allocate(3)
    for page in pages:
        pool.publish(page, bytes([page]))
    pool.release([pages[1]])
    pool.release([pages[0], pages[2]])
    assert pool.allocate(1) == [3]
    assert pool.allocate(2) == [pages[1], pages[0]]
    assert [pool.find(bytes([page])) for page in pages] == [None, None, pages[2]]


def test_holding_an_idle_page_saves_it_from_eviction() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.publish(first, b"a")
    pool.publish(second, b"b")
    pool.release([first, second])
    pool.hold([first])
    assert (pool.free, pool.used) == (1, 1)
    assert pool.allocate(1) == [second]
    assert pool.find(b"a") == first


def test_the_first_page_with_a_content_stays_the_one() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.publish(first, b"a")
    pool.publish(second, b"a")
    pool.release([second])
    assert pool.find(b"a") == first
    pool.check({first: 1})


def test_forgotten_content_is_not_found() -> None:
    pool = BlockPool(1)
    pages = pool.allocate(1)
    pool.publish(pages[0], b"a")
    pool.forget(pages)
    assert pool.find(b"a") is None
    pool.release(pages)
    pool.check({})


def test_misuse_is_an_error() -> None:
    pool = BlockPool(2)
    with pytest.raises(ValueError, match="3 pages asked, 2 free"):
        pool.allocate(3)
    pages = pool.allocate(1)
    pool.release(pages)
    with pytest.raises(ValueError, match="more often than held"):
        pool.release(pages)
    with pytest.raises(ValueError, match="nobody holds"):
        pool.publish(pages[0], b"a")


@pytest.mark.parametrize("breakage", ["reference", "twice", "lost", "mixed", "digest"])
def test_check_notices(breakage: str) -> None:
    pool = BlockPool(3)
    pages = pool.allocate(2)
    pool.publish(pages[0], b"a")
    pool.publish(pages[1], b"b")
    pool.release([pages[1]])
    pool.check({pages[0]: 1})
    if breakage == "reference":
        pool._references[pages[0]] = 2
    elif breakage == "twice":
        pool._empty.append(pages[1])
    elif breakage == "lost":
        pool._empty.clear()
    elif breakage == "mixed":
        pool._digest_of[pages[1]] = None
        del pool._page_of[b"b"]
    else:
        pool._page_of[b"c"] = 2
    with pytest.raises(RuntimeError, match="block pool"):
        pool.check({pages[0]: 1})


class PoolMachine(RuleBasedStateMachine):
    """Any order of operations keeps the books right, and found content is the content that was published."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(6)
        self.held: Counter[int] = Counter()
        self.content: dict[int, bytes] = {}

    @rule(count=st.integers(1, 3))
    def allocate(self, count: int) -> None:
        if count <= self.pool.free:
            for page in self.pool.allocate(count):
                assert not self.held[page]
                self.held[page] = 1
                self.content.pop(page, None)

    @precondition(lambda self: +self.held)
    @rule(data=st.data(), digest=st.binary(min_size=1, max_size=1))
    def publish(self, data: st.DataObject, digest: bytes) -> None:
        page = data.draw(st.sampled_from(sorted(+self.held)))
        if page not in self.content:
            self.pool.publish(page, digest)
            if self.pool.find(digest) == page:
                self.content[page] = digest

    @precondition(lambda self: +self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from(sorted(+self.held)))
        self.pool.release([page])
        self.held[page] -= 1

    @rule(digest=st.binary(min_size=1, max_size=1))
    def hold(self, digest: bytes) -> None:
        page = self.pool.find(digest)
        if page is not None:
            assert self.content[page] == digest
            self.pool.hold([page])
            self.held[page] += 1

    @rule()
    def clear(self) -> None:
        self.pool.clear()
        self.content.clear()

    @invariant()
    def books(self) -> None:
        self.pool.check(self.held)
        assert self.pool.used == len(+self.held)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_host_pages_read_by_a_step_are_not_written_by_it() -> None:
    pool = HostPool(2)
    pages = pool.allocate(2)
    pool.release(pages[:1])
    assert (pool.free, pool.used) == (0, 1)
    with pytest.raises(ValueError, match="1 host pages asked, 0 free"):
        pool.allocate(1)
    pool.settle()
    assert pool.allocate(1) == pages[:1]
    pool.check(pages)
    with pytest.raises(RuntimeError, match="host pool"):
        pool.check(pages[:1])
