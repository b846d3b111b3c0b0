"""The native thread pool: every operation once, in order, by any number of threads."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import pytest
import torch

from engine.layers.packed import DensePacked
from engine_devices._attention import NativeAttention
from engine_devices._composite import linear_kernel
from engine_devices._native import Operation
from engine_devices._operations import NativeOperations
from tests.plugins_devices.native.conftest import THREADS


@pytest.fixture
def pool(native):
    """The library; its pool is put back to the other tests' size."""
    yield native
    native.start(THREADS)


class Chain:
    """y = x + 1 + 1 … as one list of operations, each on what the one before wrote."""

    def __init__(self, native, length, rows=40, size=500):
        self._native = native
        native.tape = []
        self.x, one = torch.zeros(rows, size), torch.ones(rows, size)
        y = self.x
        for _ in range(length):
            y = NativeOperations(native).add(y, one)
        self._calls, native.tape = native.tape, None
        self.y, self.length = y, length
        self.operations = (Operation * length)()
        for operation, call in zip(self.operations, self._calls, strict=True):
            operation.kernel, operation.arguments = native.address(call.kernel), ctypes.addressof(call.arguments)

    def run(self):
        self.y.zero_()
        self._native.run_list(self.operations)
        return self.right()

    def right(self):
        return bool((self.y == self.x + self.length).all())


@pytest.mark.parametrize("threads", [1, 2, 5, 16, 32, 33])
def test_operations_run_in_order(pool, threads):
    assert pool.start(threads) == threads
    chain = Chain(pool, 300)
    for start in range(5):
        chain.x.fill_(start)
        assert chain.run()


@pytest.mark.parametrize("gate", [0, 1])
def test_products_whose_weights_are_fetched_while_threads_wait(pool, gate):
    inputs, outputs, length = 192, 512, 12
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(outputs, inputs, generator=generator).bfloat16() for _ in range(length)]
    kernels = [linear_kernel(pool, DensePacked(weight)) for weight in weights]
    x = torch.randn(1, inputs, generator=generator).bfloat16()
    pool.tape = []
    results = [kernel.apply(x, None) for kernel in kernels]
    calls, pool.tape = pool.tape, None
    gated = [torch.zeros(1, outputs // 2).bfloat16() for _ in results]
    for call, out in zip(calls, gated, strict=True):
        call.arguments.once = 1
        if gate:
            call.arguments.gate, call.arguments.out, call.arguments.out_stride = 1, out.data_ptr(), outputs // 2
    operations = (Operation * length)(*((pool.address(call.kernel), ctypes.addressof(call.arguments)) for call in calls))
    for threads in (2, 4, 7, 40):
        pool.start(threads)
        for out in (*results, *gated):
            out.zero_()
        pool.run_list(operations)
        for weight, whole, half in zip(weights, results, gated, strict=True):
            expected = x.float() @ weight.float().T
            if gate:
                expected = torch.nn.functional.silu(expected[:, : outputs // 2]) * expected[:, outputs // 2 :]
            assert torch.allclose((half if gate else whole).float(), expected, atol=0.3, rtol=2e-2)


@pytest.mark.parametrize("threads", [2, 5, 32, 33])
def test_a_list_begins_without_the_caller(pool, threads):
    pool.start(threads)
    chain = Chain(pool, 300)
    for start in range(12):
        chain.x.fill_(start)
        chain.y.zero_()
        assert pool.lead_list(chain.operations)
        time.sleep(0.0003 * (start % 3))
        assert pool.follow()
        assert chain.right()
        assert not pool.follow(), "it is over"
        assert chain.run()


def test_a_list_is_done_before_the_caller_comes(pool):
    pool.start(3)
    chain = Chain(pool, 30)
    chain.y.zero_()
    assert pool.lead_list(chain.operations)
    until = time.monotonic() + 20
    while not chain.right() and time.monotonic() < until:
        time.sleep(0.001)
    assert chain.right()
    assert pool.follow()


@pytest.mark.parametrize("threads", [2, 7])
def test_what_runs_meanwhile_ends_what_was_begun(pool, threads):
    pool.start(threads)
    long, short = Chain(pool, 4000, rows=200), Chain(pool, 20)
    for _ in range(5):
        long.y.zero_()
        assert pool.lead_list(long.operations)
        assert short.run()
        assert not pool.follow()
        assert not long.right()
        assert pool.lead_list(long.operations)
        pool.drop()
        assert not pool.follow()
        assert pool.lead_list(long.operations)
        assert pool.lead_list(short.operations), "the second one ends the first"
        assert pool.follow()
        assert short.right()
    assert long.run()
    assert pool.lead_list(long.operations)
    assert pool.start(threads) == threads
    assert not pool.follow()
    pool.drop()


def test_nothing_begins_where_nobody_could_do_it_or_it_is_measured(pool):
    chain = Chain(pool, 20)
    pool.start(1)
    assert not pool.lead_list(chain.operations)
    pool.start(2)
    pool.cdll.engine_profile(1)
    assert not pool.lead_list(chain.operations)
    pool.cdll.engine_profile(0)
    assert pool.lead_list(chain.operations)
    assert pool.follow()


def test_a_forked_child_does_not_wait_for_what_was_begun(pool):
    pool.start(3)
    chain = Chain(pool, 4000)
    assert pool.lead_list(chain.operations)
    child = os.fork()
    if child == 0:
        pool.drop()
        os._exit(0 if not pool.follow() and chain.run() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.follow()
    assert chain.right()


def test_threads_that_go_to_sleep_hear_that_their_pool_stops(pool):
    child = os.fork()
    if child == 0:  # a thread that slept on would be waited for without end
        chain = Chain(pool, 3, rows=1, size=16)
        os._exit(0 if all(pool.start(2 + turn % 3) and chain.run() for turn in range(10000)) else 1)
    deadline = time.monotonic() + 60
    ended, status = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended, "a pool did not stop"
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("threads", [1, 2, 5, 33])
def test_lists_that_nobody_waits_for_are_over_before_the_next(pool, threads):
    pool.start(threads)
    first, second = Chain(pool, 3), Chain(pool, 40)
    for start in range(1, 60):
        first.x.fill_(start)
        first.y.zero_()
        pool.begin_list(first.operations)
        if start % 3 == 0:
            pool.finish()
        elif start % 3 == 1:
            assert second.run()
        else:
            pool.begin_list(second.operations)
            pool.finish()
        assert bool((first.y == start + 3).all())
    pool.begin_list(first.operations)
    assert pool.start(3) == 3, "the old pool has done what was begun"
    assert bool((first.y == start + 3).all())


def test_pinned_threads(pool):
    before = os.sched_getaffinity(0)
    core = min(before)
    assert pool.start(2, [core, core]) == 2
    assert Chain(pool, 50).run()
    assert os.sched_getaffinity(0) == before


def test_idle_threads_cost_nothing(pool):
    pool.start(4)
    assert Chain(pool, 20).run()
    time.sleep(0.05)
    used = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - used < 0.04


def test_a_forked_child_starts_its_own_threads(pool):
    pool.start(3)
    chain = Chain(pool, 50)
    assert chain.run()
    child = os.fork()
    if child == 0:
        os._exit(0 if chain.run() and pool.start(2) == 2 and chain.run() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert chain.run()


def test_seconds_of_each_operation(pool):
    chain = Chain(pool, 30, rows=400)
    pool.cdll.engine_profile(1)
    began = time.perf_counter()
    for _ in range(3):
        assert chain.run()
    passed = time.perf_counter() - began
    seconds = (ctypes.c_double * 30)()
    assert pool.cdll.engine_profile_read(seconds, 30) == 30
    pool.cdll.engine_profile(0)
    assert all(part > 0 for part in seconds)
    assert sum(seconds) <= passed


def test_results_do_not_depend_on_the_number_of_threads(pool):
    from tests.core.attention.attention_cases import Case
    from tests.plugins_devices.native.test_attention import REFERENCE, filled, make

    case = Case(((1, 3000), (1, 700), (2, 90)), 4, 2, 64, 16, dtype="bfloat16")
    inputs = make(case, REFERENCE)
    results = []
    for threads in (1, 2, 7):
        pool.start(threads)
        backend = NativeAttention(pool)
        cache = filled(backend, case, inputs)
        results.append(backend.attend(inputs.q, inputs.k, inputs.v, cache, inputs.batch, case.spec))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
