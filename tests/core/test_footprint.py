"""The age of a process, its phases, memory given back, and host memory that is committed later."""

from __future__ import annotations

import gc
import linecache
import subprocess
import sys
import time
import weakref
from itertools import pairwise

import pytest
import torch

from engine import code_pages
from engine.footprint import Phases, age, rest, settle, trim, unswept
from engine.plugin.host_memory import _pieces, commit, zeros

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@linux
def test_age_grows_with_the_clock():
    first, began = age(), time.monotonic()
    time.sleep(0.05)
    assert first > 0.0
    assert age() - first == pytest.approx(time.monotonic() - began, abs=0.02)


def test_phases_add_up_to_the_time_that_passed():
    began = time.monotonic()
    phases = Phases(before=1.0)
    phases.end("a")
    time.sleep(0.02)
    phases.end("b")
    phases.end("a")
    assert list(phases.seconds) == ["a", "b"]
    assert phases.seconds["a"] >= 1.0 and phases.seconds["b"] >= 0.02
    assert sum(phases.seconds.values()) == pytest.approx(time.monotonic() - began + 1.0, abs=0.01)
    trim()


@linux
def test_zeros_take_memory_when_they_are_committed():
    size = 64 << 20
    before = resident()
    tensor = zeros((size // 8, 4), torch.bfloat16)
    assert tensor.shape == (size // 8, 4) and tensor.dtype is torch.bfloat16 and tensor.is_contiguous()
    assert resident() - before < size // 4
    tensor[5] = 3.0
    thread = commit([tensor])
    assert thread is not None
    thread.join(60)
    assert resident() - before > size * 0.9
    assert tensor[5].tolist() == [3.0] * 4 and not tensor[6:].any() and not tensor[:5].any()


def test_empty_and_odd_shapes():
    assert zeros((0, 3), torch.float32).shape == (0, 3)
    assert zeros((3, 5), torch.float8_e4m3fn).view(torch.uint8).sum() == 0
    assert zeros((7,), torch.float32).tolist() == [0.0] * 7


class Link:
    """May refer to itself."""

    other: Link


def test_what_is_created_unswept_is_no_longer_looked_at():
    before = gc.get_freeze_count()
    try:
        with unswept():
            assert not gc.isenabled()
            held = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(held)
        assert not any(each is held for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_unswept_leaves_a_collector_off_that_was_off():
    gc.disable()
    try:
        with unswept():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


def test_settling_frees_garbage_first():
    garbage = Link()
    garbage.other = garbage
    gone = weakref.ref(garbage)
    del garbage
    try:
        settle()
        assert gone() is None
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@linux
def test_who_stops_lets_go_of_the_memory():
    """A closed engine must not go on to fill the cache that nobody will use."""
    tensor = zeros((1 << 31,), torch.uint8)
    gone = weakref.ref(tensor)
    work = commit([tensor])
    assert work is not None
    work.stop()
    del tensor
    work.join()
    gc.collect()
    assert gone() is None


ENDING = """
import sys
import torch
from engine.plugin.host_memory import commit, zeros
tensor = zeros((int(sys.argv[2]),), torch.uint8)
if sys.argv[1] == "freed":
    tensor.fill_(1)
work = commit([tensor])
if sys.argv[1] == "freed":
    del tensor
    work.stop()
"""


@linux
@pytest.mark.parametrize(("case", "size"), [("freed", 512 << 20), ("busy", 1 << 31)])
def test_a_process_may_end_meanwhile(case, size):
    """While the memory is given back, which takes long; and while there is still much to commit."""
    done = subprocess.run([sys.executable, "-c", ENDING, case, str(size)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_beginning_of_every_tensor_is_committed_first():
    tensors = [zeros((size,), torch.uint8) for size in (5 << 20, 3 << 20, 9 << 20)]
    pieces = list(_pieces(tensors))
    bases = [tensor.data_ptr() for tensor in tensors]
    order = [next(i for i, base in enumerate(bases) if base <= at < base + tensors[i].numel()) for at, _ in pieces]
    assert order == [0, 1, 2, 0, 1, 2, 0, 2, 2, 2]
    for base, tensor in zip(bases, tensors, strict=True):
        mine = sorted((at, size) for at, size in pieces if base <= at < base + tensor.numel())
        assert mine[0][0] == base
        assert all(at + size == following for (at, size), (following, _) in pairwise(mine))
        assert sum(mine[-1]) == base + tensor.numel()


THREAD = """
import sys, threading
from engine.footprint import one_arena, trim
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
if sys.argv[1] == "one":
    one_arena()
def work():
    for size in (30 << 20, 30 << 20):
        bytearray(size)  # the allocator learns to keep as much
    blocks = [bytearray(100_000) for _ in range(400)]
    blocks.clear()
before = resident()
thread = threading.Thread(target=work)
thread.start(); thread.join()
trim()
print(resident() - before)
"""


@linux
def test_rest_lets_code_go_only_where_much_of_it_has_come(monkeypatch):
    forgotten: list[int] = []
    monkeypatch.setattr(code_pages, "forget", lambda: forgotten.append(1))
    monkeypatch.setattr(code_pages, "resident", lambda: 15 << 20)
    rest()
    assert not forgotten
    monkeypatch.setattr(code_pages, "resident", lambda: 17 << 20)
    rest()
    assert forgotten


def test_settle_drops_the_sources_that_were_read():
    assert linecache.getlines(__file__)
    settle()
    assert not linecache.cache


@linux
def test_a_thread_leaves_nothing_in_the_allocator():
    def left(arenas: str) -> int:
        return int(subprocess.run([sys.executable, "-c", THREAD, arenas], capture_output=True, text=True, check=True).stdout)

    assert left("one") < 4 << 20
    if left("many") < 16 << 20:
        pytest.skip("this allocator gives back what threads leave by itself")
