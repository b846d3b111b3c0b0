"""Queue, prefill and decode are the whole, whatever happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.messages import Output, Spent
from engine.metrics import RequestTimes
from engine.plugin import FinishReason

SECONDS = st.floats(0.0, 1e6, allow_nan=False)


@given(st.floats(0, 1e6), st.none() | SECONDS, st.lists(st.tuples(SECONDS, st.integers(0, 5)), max_size=5), SECONDS)
def test_the_parts_add_up(arrival, started, outputs, rest):
    times, now = RequestTimes(arrival), arrival
    for index, (later, count) in enumerate(outputs):
        now += later
        # the engine's clock reads may lie before the arrival here, never after the output
        begun = min(max(started or 0.0, 1e-9), now) if index == 0 and started is not None else 0.0
        times.see(Output(id="a", token_ids=[1] * count, started=begun), now)
    times.end(now + rest)
    queue, prefill, decode = times.parts()
    assert min(queue, prefill, decode) >= 0
    assert queue + prefill + decode == pytest.approx(times.whole, rel=1e-9, abs=1e-6)
    if not any(count for _, count in outputs):
        assert decode == 0


def test_each_part_is_what_it_says():
    times = RequestTimes(10.0)
    times.see(Output(id="a", started=12.0, queued=11.0), 13.0)
    assert times.gap is None and not times.first
    times.see(Output(id="a", token_ids=[1], spent=Spent(1, 2, 3)), 15.0)
    assert times.gap is None
    times.see(Output(id="a", token_ids=[1, 2]), 16.0)
    assert times.gap == 0.5 and times.spent == Spent(1, 2, 3)
    times.see(Output(id="a", token_ids=[1]), 16.0)
    assert times.gap == 0.0, "the same moment is a gap of zero, not a first token"
    times.see(Output(id="a", finish_reason=FinishReason.STOP), 17.0)
    assert times.gap is None
    times.end(17.0)
    assert times.parts() == (2.0, 3.0, 2.0) and times.whole == 7.0


@pytest.mark.parametrize(("begun", "expected"), [(0.0, (4.0, 0.0, 0.0)), (11.0, (1.0, 3.0, 0.0))], ids=["queued", "prefilling"])
def test_one_that_was_aborted_spent_its_time_where_it_was(begun, expected):
    times = RequestTimes(10.0)
    if begun:
        times.see(Output(id="a", started=begun), 12.0)
    times.end(14.0)
    assert times.parts() == expected
