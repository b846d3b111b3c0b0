"""Grammars stepped by the native pool: the order of calls, what becomes of the masks, and all of a row in one go."""

from __future__ import annotations

import ctypes
import threading

import numpy as np
import pytest
import torch

from engine.plugin import GrammarSteps
from engine_devices._operations import NativeOperations
from tests.plugins_devices.native.conftest import THREADS

FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)
WORDS, END = 3, 40


class Calls:
    """Two calls per row, which Python answers: the first notes its row, the second writes ``masks[row]``; row ``broken`` fails."""

    def __init__(self, masks, broken=None):
        self.bits = np.zeros(masks.shape, np.int32)
        self.done, self.lock, self.masks, self.broken = [], threading.Lock(), masks, broken
        self._functions = FUNCTION(self._first), FUNCTION(self._second)
        first, second = (ctypes.cast(function, ctypes.c_void_p).value for function in self._functions)
        rows = len(masks)
        self.calls = np.zeros((rows, 2, 5), np.uint64)
        self.calls[:, :, 0] = first, second
        self.calls[:, :, 1] = np.arange(rows)[:, None] + 1
        self.calls[:, :, 3] = 3, 4

    def _first(self, row, _arguments, count, _result):
        with self.lock:
            self.done.append(((row or 0) - 1, count))
        return 5 if row == (self.broken or -1) + 1 else 0

    def _second(self, row, _arguments, count, _result):
        self._first(row, None, count, None)
        self.bits[row - 1] = self.masks[row - 1]
        return 0

    def steps(self, kept=None, ends=None, limit=10.0):
        rows = len(self.bits)
        kept = np.zeros(rows, np.uint64) if kept is None else kept
        ends = np.zeros((rows, 0), np.int64) if ends is None else ends
        return GrammarSteps(self.calls, self.bits, kept, END, ends, np.full(rows, -1, np.int32), np.zeros(1, np.int32), limit)


@pytest.fixture
def ops(native):
    return NativeOperations(native)


def random_masks(rows, words=WORDS, seed=0):
    return np.random.default_rng(seed).integers(-(2**31), 2**31, (rows, words)).astype(np.int32)


def test_each_row_does_its_calls_in_order_until_one_fails(ops):
    calls = Calls(random_masks(9), broken=4)
    steps = calls.steps()
    ops.step_grammars(steps)
    assert steps.status.tolist() == [0, 0, 0, 0, 5, 0, 0, 0, 0] and not steps.late[0]
    for row in range(9):
        assert [count for each, count in calls.done if each == row] == ([3] if row == 4 else [3, 4])
    whole = [row for row in range(9) if row != 4]
    assert (calls.bits[whole] == calls.masks[whole]).all() and not calls.bits[4].any()


def test_calls_that_are_begun_are_over_before_others_and_when_they_are_waited_for(ops):
    for threads in (1, 2, THREADS):
        ops._native.start(threads)
        for turn in range(20):
            calls = Calls(random_masks(9, seed=turn))
            steps = calls.steps()
            assert ops.begin_grammars(steps)
            if turn % 2:
                ops.finish_grammars()
            else:
                ops.best(torch.zeros(3, 70))
            assert not steps.status.any() and (calls.bits == calls.masks).all() and len(calls.done) == 18
    ops._native.start(THREADS)


def test_arrays_that_come_again_with_other_contents(ops):
    rows, size = 6, 96
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(3))
    masks, named = random_masks(rows, WORDS), np.arange(rows)
    drawing = (
        np.full(rows, 0.8, np.float32), np.full(rows, 0), np.full(rows, 0.9, np.float32), np.full(rows, 0.01, np.float32), np.zeros(rows)
    )  # fmt: skip
    for turn in range(4):
        drawing[-1][:] = np.random.default_rng(turn).random(rows)
        masks[:] = random_masks(rows, WORDS, seed=turn)
        for given in (None, (named, masks)):
            ours, theirs = (x.to(torch.bfloat16 if turn == 3 else torch.float32) for x in (logits.clone(), logits.clone()))
            best = ours.amax(-1).float()
            again = tuple(map(np.copy, drawing)), None if given is None else tuple(map(np.copy, given))
            wanted = NativeOperations(ops._native).sample(theirs, best.clone(), *again[0], again[1])
            assert torch.equal(ops.sample(ours, best, *drawing, given), wanted)


def test_masks_keep_what_may_stay_and_get_further_ends_where_there_is_one(ops):
    masks = np.zeros((3, WORDS), np.int32)
    masks[:, 0] = -1
    masks[:2, END >> 5] = 1 << (END & 31)
    keeping = np.full(WORDS, -1, np.int32)
    keeping[0] = 6
    calls = Calls(masks)
    steps = calls.steps(np.array([0, keeping.ctypes.data, keeping.ctypes.data], np.uint64), np.array([[70, -1], [64, 3], [70, 71]]))
    ops.step_grammars(steps)
    found = [np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little")).tolist() for row in calls.bits]
    assert found == [[*range(32), END, 70], [1, 2, 3, END, 64], [1, 2]]


def test_a_slow_row_is_told(ops):
    steps = Calls(random_masks(3)).steps(limit=0.0)
    ops.step_grammars(steps)
    assert steps.late[0] == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "size"), [(1, 70), (3, 96), (8, 96), (8, 70), (33, 20011)])
def test_steps_masks_and_draw_in_one_go_are_what_they_are_one_after_the_other(ops, dtype, rows, size):
    words = -(-size // 32)
    chance = np.random.default_rng(rows)
    named = chance.permutation(rows)[: max(1, rows - 2)].astype(np.int64)
    masks = random_masks(len(named), words, seed=size)
    logits = torch.randn(rows, size, generator=torch.Generator().manual_seed(1)).to(dtype)
    drawing = (
        np.full(rows, 0.8, np.float32), np.full(rows, 20), np.full(rows, 0.9, np.float32), np.zeros(rows, np.float32), chance.random(rows)
    )  # fmt: skip
    apart = logits.clone()
    value, _ = ops.restrict(apart, named, masks)
    wanted = ops.sample(apart, value, *drawing)
    best = torch.empty(rows)
    calls = Calls(masks)
    steps = calls.steps()
    steps = GrammarSteps(steps.calls, steps.bits, steps.kept, 2, steps.ends, steps.status, steps.late, steps.limit)
    assert torch.equal(ops.sample(logits, best, *drawing, (named, calls.bits), steps), wanted)
    assert torch.equal(logits, apart) and torch.equal(best, value)
    again = Calls(masks)
    other = again.steps()
    assert all(map(torch.equal, ops.restrict(logits, named, again.bits, other), ops.best(apart)))
