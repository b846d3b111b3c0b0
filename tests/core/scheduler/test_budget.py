"""Who computes how much in a step."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ConfigError
from engine.plugin.step import Step
from tests.core.scheduler.bench import Bench, request


def counts(step: Step | None) -> dict[int, int]:
    assert step is not None
    return {work.seq: work.count for work in step.work}


def prompt(start: int, length: int) -> list[int]:
    return [(start * 13 + i * 7) % 49 + 1 for i in range(length)]


def long_answer(id: str, tokens: list[int], **fields: Any) -> Any:
    return request(id, tokens, max_tokens=40, ignore_eos=True, **fields)


def test_decodes_come_first_and_prompts_fill_the_rest() -> None:
    bench = Bench(budget=16)
    bench.add(long_answer("a", prompt(1, 5)))
    bench.step()
    bench.add(long_answer("b", prompt(2, 40), arrival=1.0))
    assert [counts(bench.step()) for _ in range(4)] == [{0: 1, 1: 15}, {0: 1, 1: 15}, {0: 1, 1: 10}, {0: 1, 1: 1}]


def test_whole_prompts_never_share_a_step_with_decodes() -> None:
    bench = Bench(budget=100, max_model_len=100, chunked_prefill=False)
    bench.add(long_answer("a", prompt(1, 60)), long_answer("b", prompt(2, 30)), long_answer("c", prompt(3, 30)))
    assert [counts(bench.step()) for _ in range(3)] == [{0: 60, 1: 30}, {2: 30}, {0: 1, 1: 1, 2: 1}]
    bench.add(long_answer("d", prompt(4, 7)))
    assert [counts(bench.step()) for _ in range(2)] == [{3: 7}, {0: 1, 1: 1, 2: 1, 3: 1}]


def test_whole_prompts_need_a_budget_of_the_context() -> None:
    with pytest.raises(ConfigError, match="max_num_batched_tokens"):
        Bench(budget=99, max_model_len=100, chunked_prefill=False)


def test_one_partial_prefill_at_a_time() -> None:
    bench = Bench(budget=20)
    bench.add(*(request(str(i), prompt(i, 15), arrival=i, max_tokens=1) for i in range(3)))
    assert [counts(bench.step()) for _ in range(3)] == [{0: 15, 1: 5}, {1: 10, 2: 10}, {2: 5}]


def test_partial_prefills_share_the_budget() -> None:
    bench = Bench(budget=20, max_num_partial_prefills=2, max_long_partial_prefills=2, long_prefill_token_threshold=30)
    bench.add(*(request(str(i), prompt(i, 30), arrival=i, max_tokens=1) for i in range(3)))
    steps = [counts(bench.step()) for _ in range(5)]
    assert steps == [{0: 10, 1: 10}, {0: 10, 1: 10}, {0: 10, 1: 5, 2: 5}, {1: 5, 2: 15}, {2: 10}]


def test_short_prompts_overtake_long_ones() -> None:
    bench = Bench(budget=20, pages=100, max_num_partial_prefills=2, long_prefill_token_threshold=30)
    bench.add(*(request(f"long {i}", prompt(i, 80), arrival=i, max_tokens=1) for i in range(2)))
    bench.add(*(request(f"short {i}", prompt(9 + i, 10), arrival=9.0 + i, max_tokens=1) for i in range(2)))
    assert counts(bench.step()) == {0: 10, 2: 10}
    assert counts(bench.step()) == {0: 10, 3: 10}
    assert counts(bench.step()) == {0: 20}, "with no short ones left the long one gets all"
    bench.run()
    bench.verify()


def test_the_default_threshold_is_four_percent_of_the_context() -> None:
    bench = Bench(budget=20, pages=100, max_model_len=200, max_num_partial_prefills=2)
    bench.add(request("0", prompt(0, 30), max_tokens=1), request("1", prompt(1, 9), arrival=1.0, max_tokens=1))
    bench.add(request("2", prompt(2, 8), arrival=2.0, max_tokens=1))
    assert counts(bench.step()) == {0: 12, 2: 8}


def test_no_more_sequences_than_allowed() -> None:
    bench = Bench(seqs=2)
    bench.add(*(request(str(i), [i + 1], arrival=i, max_tokens=3, ignore_eos=True) for i in range(5)))
    assert counts(bench.step()) == {0: 1, 1: 1}
    assert (bench.scheduler.stats().running, bench.scheduler.stats().waiting) == (2, 3)
    bench.run()
    bench.verify()


def test_drafts_take_what_decodes_leave_and_stop_at_the_end() -> None:
    bench = Bench(budget=6)
    bench.add(request("a", [1], ignore_eos=True, max_tokens=4), request("b", [2], ignore_eos=True, max_tokens=40))
    bench.step()
    for sequence in bench.scheduler._roster.running:
        sequence.draft = [1, 2, 3, 4, 5, 6]
    step = bench.scheduler.schedule()
    assert step is not None
    # Of the first's 4 tokens one is there, so 2 drafts and the token after them are all it can use; the budget leaves
    # 2 to the second.
    assert [len(work.draft) for work in step.work] == [2, 2]
    assert counts(step) == {0: 3, 1: 3}


def test_lookahead_reserves_pages() -> None:
    plain, reserving = Bench(), Bench(lookahead_slots=9)
    for bench in (plain, reserving):
        bench.add(long_answer("a", prompt(1, 8)))
        bench.step()
    assert (plain.scheduler.stats().pages_used, reserving.scheduler.stats().pages_used) == (2, 5)


def test_delay_collects_prompts_while_something_runs() -> None:
    now = [0.0]
    bench = Bench(clock=lambda: now[0], delay_factor=1000.0)  # the simulator's steps take a millisecond
    bench.add(long_answer("a", prompt(1, 4)))
    assert counts(bench.step()) == {0: 4}, "nothing runs: no delay"
    bench.add(long_answer("b", prompt(2, 4)))
    now[0] = 0.9
    bench.add(long_answer("c", prompt(3, 4)))
    assert counts(bench.step()) == {0: 1}
    now[0] = 1.1
    assert counts(bench.step()) == {0: 1, 1: 4, 2: 4}
    bench.run()
    bench.verify()


def test_work_holds_only_what_is_new() -> None:
    bench = Bench(budget=10)
    bench.add(long_answer("a", prompt(1, 14)))
    bench.run()
    first, second, third, *rest = [step.work[0] for step in bench.steps]
    assert (first.start, first.count, first.sample, len(first.blocks), first.append) == (0, 10, False, 4, [])
    assert (second.start, second.count, second.sample, second.blocks) == (10, 4, True, [])
    assert (third.start, third.append) == (14, bench.tokens("a")[:1])
    assert [len(work.blocks) for work in rest[:7]] == [1, 0, 0, 0, 1, 0, 0], "a page comes a step before it is needed"
    assert [len(step.new) for step in bench.steps] == [1] + [0] * (len(bench.steps) - 1)


def test_more_sequences_than_tokens_take_turns_by_rank() -> None:
    bench = Bench(budget=8, seqs=20, max_model_len=8, chunked_prefill=False)
    bench.add(*(request(str(i), [i + 1], arrival=i, max_tokens=4, ignore_eos=True) for i in range(12)))
    assert [sorted(counts(bench.step())) for _ in range(3)] == [list(range(8)), list(range(8, 12)), list(range(8))]
    bench.run()
    bench.verify()


def test_prompts_take_small_steps_while_others_decode() -> None:
    bench = Bench(budget=64, mixed_tokens=20)
    bench.add(request("a", [1] * 50, max_tokens=30, ignore_eos=True))
    bench.step()
    bench.add(request("b", [2] * 50, max_tokens=2), request("c", [3] * 10, max_tokens=2))
    bench.run()
    bench.verify()
    assert [step.num_tokens for step in bench.steps[:4]] == [50, 20, 20, 23]
    assert [work.count for work in bench.steps[1].work] == [1, 19]


def test_where_a_whole_step_of_prompts_waits_it_is_taken() -> None:
    bench = Bench(budget=64, mixed_tokens=20)
    bench.add(request("a", [1] * 50, max_tokens=30, ignore_eos=True))
    bench.step()
    bench.add(*(request(f"n{i}", prompt(i, 25), max_tokens=1) for i in range(3)))
    bench.run()
    bench.verify()
    assert [step.num_tokens for step in bench.steps[:3]] == [50, 64, 13]


def test_one_prompt_of_more_than_a_step_is_no_crowd() -> None:
    bench = Bench(budget=64, mixed_tokens=20)
    bench.add(request("a", [1] * 50, max_tokens=30, ignore_eos=True))
    bench.step()
    bench.add(request("b", [2] * 70, max_tokens=2))
    bench.run()
    bench.verify()
    assert [step.num_tokens for step in bench.steps[:5]] == [50, 20, 20, 20, 14]
