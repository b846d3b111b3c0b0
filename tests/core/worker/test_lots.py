"""What is kept between draws changes no draw."""

from __future__ import annotations

import numpy as np
import pytest

from engine.plugin import NewSequence, SamplingParams
from engine.worker.lots import AHEAD, Lots, drawing_of
from engine.worker.sequences import Sequence


def sequence(number):
    params = SamplingParams(seed=number, temperature=0.5 + number, top_k=number, top_p=0.9, min_p=0.01 * number)
    return Sequence(NewSequence(seq=number, token_ids=[1, 2], num_prompt=2, params=params), number)


def equal(lots, sequences, lengths):
    lengths = np.array(lengths)
    return all((a == b).all() for a, b in zip(lots.of(sequences, lengths), drawing_of(sequences, lengths), strict=True))


def test_step_after_step_and_whatever_else_comes():
    lots, some = Lots(), [sequence(i) for i in range(5)]
    for step in range(2 * AHEAD + 3):
        assert equal(lots, some, [7 + step, 3 + step, 3, 4, 5][:2] + [9 + step] * 3)
    assert equal(lots, some, [7, 3, 9, 9, 9]), "back again"
    assert equal(lots, some, [7, 3, 9, 9, 9]), "the same twice"
    assert equal(lots, some[:4], [8, 4, 10, 10]), "one less"
    assert equal(lots, [*some[:3], some[4]], [9, 5, 11, 11]), "another"
    assert equal(lots, [some[0]] * 3, [4, 5, 6]), "several rows of one"
    assert equal(lots, [some[0]] * 3, [5, 6, 7])


def test_the_arrays_stay_as_long_as_the_sequences_do():
    lots, some = Lots(), [sequence(i) for i in range(3)]
    first = lots.of(some, np.array([1, 2, 3]))
    assert all(a is b for a, b in zip(first, lots.of(list(some), np.array([2, 3, 4])), strict=True))
    assert lots.of(some[:2], np.array([3, 4]))[0] is not first[0]


@pytest.mark.parametrize("temperature", [1e38, 1e39, 1e300])
def test_no_heat_makes_forbidden_tokens_likely(temperature):
    """Beyond float32's range too: infinity times a distance of 0 is no number."""
    params = SamplingParams(temperature=temperature)
    (heat, *_) = drawing_of([Sequence(NewSequence(seq=0, token_ids=[1, 2], num_prompt=2, params=params), 0)], np.array([2]))
    relative = np.array([0.0, -3.0, -np.inf], np.float32) / heat
    assert list(relative > -np.inf) == [True, True, False]
    assert relative[0] > relative[1], "top_k still has an order"
