"""Percentiles, medians, loads and summaries: numbers that can be checked by hand."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from engine.cli.bench.latency import summarize
from engine.cli.bench.loads import Sizes, draw_prompts, draw_sizes, draw_times, draw_words
from engine.cli.bench.offline import Timed
from engine.cli.bench.requests import Measured
from engine.cli.bench.rounds import Round
from engine.cli.bench.summary import columns, describe, flatten, over_repeats, percentile, table
from engine.errors import ConfigError


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1), (1, 1), (10, 1), (11, 2), (50, 5), (90, 9), (91, 10), (99, 10), (100, 10)]
)
def test_percentiles_are_measured_values(percent, value):
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], percent) == value


def test_nothing_measured_has_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    assert describe([]) is None
    assert describe([3.0]) == {"mean": 3.0, "p50": 3.0, "p90": 3.0, "p99": 3.0, "min": 3.0, "max": 3.0}


def test_medians_over_repeats():
    repeats = [{"a": {"b": value}, "c": 1, "text": "x", "none": None, "on": True} for value in (3.0, 1.0, 2.0, 10.0)]
    repeats[0]["c"] = None
    assert over_repeats(repeats) == {"a.b": {"median": 2.5, "min": 1.0, "max": 10.0}}
    assert flatten({"a": {"b": {"c": 1}}, "d": [1], "e": None}) == {"a.b.c": 1}


def test_tables():
    assert table({"a": 1, "bc": {"d": 0.123456, "e": 123456.7}}) == "a     1\nbc.d  0.1235\nbc.e  123457"
    assert columns(["", "x"], [["one", "1"], ["two", "22"]]) == "      x\none   1\ntwo  22"


def test_lengths():
    source = random.Random(1)
    assert draw_sizes(3, 10, 5, "fixed", source) == [Sizes(10, 5)] * 3
    uniform = draw_sizes(4000, 100, 50, "uniform", source)
    assert {min(s.input for s in uniform), max(s.input for s in uniform)} == {50, 150}
    chat = draw_sizes(20000, 200, 100, "chat", source)
    inputs = [size.input for size in chat]
    assert statistics.fmean(inputs) == pytest.approx(200, rel=0.1) and max(inputs) <= 1600 and min(inputs) >= 1
    assert statistics.median(inputs) < 150, "many short, few long"
    assert statistics.fmean(size.output for size in chat) == pytest.approx(100, rel=0.1)
    with pytest.raises(ConfigError, match="--lengths odd"):
        draw_sizes(1, 1, 1, "odd", source)


def test_prompts_share_what_they_shall_and_nothing_else():
    source = random.Random(2)
    ordinary = list(range(10, 5000))
    prompts = draw_prompts([Sizes(64, 1)] * 50, ordinary, [1, 2, 3], source)
    assert all(len(prompt) == 64 and prompt[:3] == [1, 2, 3] for prompt in prompts)
    assert len({tuple(prompt[3:8]) for prompt in prompts}) == 50
    assert [len(prompt) for prompt in draw_prompts([Sizes(2, 1), Sizes(1, 1)], ordinary, [1, 2, 3], source)] == [2, 1]
    assert draw_prompts([Sizes(9, 1)], ordinary, [], random.Random(3)) == draw_prompts([Sizes(9, 1)], ordinary, [], random.Random(3))


def test_times_of_a_poisson_process():
    times = draw_times(20001, 50.0, random.Random(4))
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert times[0] == 0.0 and min(gaps) >= 0.0
    assert statistics.fmean(gaps) == pytest.approx(0.02, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.02, rel=0.05), "exponential: the deviation is the mean"
    assert draw_times(3, 0.0, random.Random(4)) == [0.0] * 3


def test_words_are_words():
    assert all(word.isalpha() and 2 <= len(word) <= 6 for word in draw_words(100, random.Random(5)))


def test_one_batch_is_split_into_prefill_and_decode():
    batch = [Timed(100, [1.0, 1.5, 2.0]), Timed(100, [1.25, 2.25, 3.25])]
    found = summarize([batch])
    assert found["batch_seconds"]["p50"] == 3.25 and found["ttft_seconds"]["mean"] == 1.125
    assert found["itl_seconds"]["min"] == 0.5 and found["itl_seconds"]["max"] == 1.0
    assert found["output_tokens_per_second"] == pytest.approx(6 / 3.25)
    assert found["prefill_tokens_per_second"] == 200 / 1.25
    assert found["decode_tokens_per_second"] == 2.0, "four tokens in the two seconds after everybody's first"
    assert summarize([[Timed(8, [0.5])]])["decode_tokens_per_second"] is None


def request(sent: float, moments: list[float], ended: float, tokens: int, error: str | None = None) -> Measured:
    return Measured(sent, Sizes(4, tokens), moments, ended, 4, tokens, error)


def test_a_request_is_timed_from_its_own_start():
    one = request(10.0, [10.5, 10.7, 11.1], 11.2, 4)
    assert one.ttft == pytest.approx(0.5) and one.e2e == pytest.approx(1.2)
    assert one.tpot == pytest.approx(0.2), "three tokens after the first, in 0.6 s, whatever the number of pieces"
    assert one.itl == pytest.approx([0.2, 0.4])
    assert request(0.0, [1.0], 1.0, 1).tpot is None


def test_goodput_counts_whoever_keeps_every_limit():
    fast, slow = request(0.0, [0.1, 0.2], 0.2, 2), request(0.0, [0.1, 0.9], 0.9, 2)
    failed = request(0.0, [], 0.1, 0, "status 500: x")
    summary = Round([fast, slow, failed], 2.0, {"ttft": 150, "tpot": 200}).summary()
    assert summary["completed"] == 2 and summary["failed"] == 1
    assert summary["requests_per_second"] == 1.0 and summary["goodput_per_second"] == 0.5
    assert summary["output_tokens_per_second"] == 2.0 and summary["total_tokens_per_second"] == 6.0
    assert Round([fast, slow], 2.0, {"e2e": 100}).summary()["goodput_per_second"] == 0.0
    assert Round([fast], 1.0).summary()["goodput_per_second"] is None
    empty = Round([failed], 1.0).summary()
    assert empty["completed"] == 0 and empty["ttft_ms"] is None
