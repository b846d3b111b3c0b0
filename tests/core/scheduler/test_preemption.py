"""What happens when pages run out, and when better requests come."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import ContractViolation
from engine.plugin import PreemptionMode, RequestView
from engine.plugin.step import Step
from tests.core.scheduler.bench import Bench, request


def seqs(step: Step | None) -> list[int]:
    assert step is not None
    return [work.seq for work in step.work]


def talker(id: str, first: int, **fields: Any) -> Any:
    """Seven tokens of prompt and seventeen of answer: six pages of four."""
    return request(id, [first] * 7, max_tokens=17, ignore_eos=True, **fields)


def two_in_eight_pages(**settings: Any) -> Bench:
    bench = Bench(pages=8, max_model_len=32, **settings)
    bench.add(talker("old", 1, arrival=0.0), talker("young", 2, arrival=1.0))
    return bench


def until_preempted(bench: Bench) -> Step:
    for _ in range(100):
        step = bench.step()
        assert step is not None
        if step.preempted:
            return step
    raise AssertionError("nobody was preempted")


def test_recompute_takes_the_younger_and_brings_it_back_first() -> None:
    bench = two_in_eight_pages(prefix_caching=False)
    step = until_preempted(bench)
    assert (step.preempted, seqs(step), step.swap_out) == ([1], [0], [])
    assert bench.scheduler._roster.by_id["young"].view().computed == 0
    bench.add(request("newcomer", [3], arrival=2.0))
    while len(seqs(step)) == 1:
        step = bench.step()
    assert seqs(step)[:2] in ([0, 1], [1, 2])
    again = next(work for work in step.work if work.seq == 1)
    assert (again.start, again.count) == (0, 7 + len(bench.tokens("young")) - 1) and not step.new[:-1]
    bench.run()
    bench.verify()
    assert bench.scheduler.stats().preemptions == 1


def test_swap_moves_pages_out_and_back_and_computes_nothing_twice() -> None:
    bench = two_in_eight_pages(prefix_caching=False, mode="swap", host_pages=5)
    step = until_preempted(bench)
    assert (step.preempted, len(step.swap_out)) == ([1], 4)
    stats = bench.scheduler.stats()
    assert (stats.swapped, stats.host_pages_used, stats.running) == (1, 4, 1)
    bench.run()
    bench.verify()
    assert bench.simulator.computed == 2 * (7 + 16)
    assert sum(len(step.swap_in) for step in bench.steps) == 4
    bench.add(talker("c", 1, arrival=0.0), talker("d", 2, arrival=1.0))
    bench.run()
    bench.verify()
    assert sum(len(step.swap_in) for step in bench.steps) == 8, "host pages are used again"


def test_swapping_in_takes_from_the_prefix_cache_what_is_still_there() -> None:
    bench = two_in_eight_pages(mode="swap", host_pages=8)
    bench.run()
    bench.verify()
    out, back = (sum(len(getattr(step, name)) for step in bench.steps) for name in ("swap_out", "swap_in"))
    assert 0 < back < out


def test_swap_falls_back_to_recompute_when_the_host_is_full() -> None:
    bench = two_in_eight_pages(mode="swap", host_pages=2)
    bench.run()
    bench.verify()
    assert bench.scheduler.stats().preemptions > 0
    assert not any(step.swap_out for step in bench.steps)


def test_a_mode_that_swaps_without_room_breaks_its_contract() -> None:
    class Greedy(PreemptionMode):
        def swap(self, victim: RequestView, pages: int, free_host_pages: int) -> bool:
            return True

    bench = two_in_eight_pages(mode="swap", host_pages=1)
    bench.scheduler._preemption._mode = Greedy()
    with pytest.raises(ContractViolation, match="1 host pages are free"):
        bench.run()


def test_an_aborted_swapped_out_request_frees_the_host() -> None:
    bench = two_in_eight_pages(mode="swap", host_pages=8)
    until_preempted(bench)
    bench.abort("young")
    bench.run()
    bench.verify()


def test_drafts_are_given_up_before_anybody_is_preempted() -> None:
    bench = Bench(pages=8, max_model_len=32, drafts=4)
    bench.add(request("a", [1] * 15, max_tokens=2, ignore_eos=True), request("b", [2] * 14, max_tokens=3,
    ignore_eos=True))
    bench.run()
    bench.verify()
    assert bench.scheduler.stats().preemptions == 0


def urgent(id: str, first: int, priority: int, **fields: Any) -> Any:
    return talker(id, first, priority=priority, **fields)


def test_an_urgent_request_takes_the_slot_of_a_worse_one() -> None:
    bench = Bench(policy_name="priority", seqs=2)
    bench.add(urgent("a", 1, 5, arrival=0.0), urgent("b", 2, 5, arrival=1.0))
    bench.step()
    bench.add(urgent("now", 3, 1, arrival=2.0))
    step = bench.step()
    assert step is not None
    assert (step.preempted, seqs(step)) == ([1], [0, 2])
    bench.run()
    bench.verify()


def test_an_urgent_request_takes_the_pages_of_several_worse_ones_worst_first() -> None:
    bench = Bench(policy_name="priority", pages=11, max_model_len=32, mode="swap", host_pages=8)
    running = enumerate((1, 2, 4, 5))
    bench.add(*(request(f"r{i}", [i + 1] * 7, priority=p, max_tokens=2, ignore_eos=True) for i, p in running))
    bench.step()
    bench.add(request("now", [9] * 22, priority=2, max_tokens=4, ignore_eos=True))
    step = bench.step()
    assert step is not None
    assert (sorted(step.preempted), seqs(step)) == ([2, 3], [0, 1, 4])
    bench.run()
    bench.verify()


def test_nobody_is_preempted_where_it_would_not_help() -> None:
    bench = Bench(policy_name="priority", pages=8, max_model_len=32)
    bench.add(request("good", [1] * 15, priority=1, max_tokens=8, ignore_eos=True))
    bench.add(request("bad", [2] * 7, priority=9, max_tokens=2, ignore_eos=True))
    bench.step()
    bench.add(request("middle", [3] * 22, priority=5, max_tokens=2, ignore_eos=True))
    step = bench.step()
    assert step is not None
    assert (step.preempted, seqs(step)) == ([], [0, 1])
    bench.run()
    bench.verify()


def test_equals_do_not_preempt_each_other() -> None:
    bench = Bench(policy_name="priority", seqs=1)
    bench.add(urgent("a", 1, 3, arrival=5.0))
    bench.step()
    bench.add(urgent("b", 2, 3, arrival=1.0))
    bench.run()
    bench.verify()
    assert bench.scheduler.stats().preemptions == 0


def test_the_best_always_progresses() -> None:
    bench = Bench(pages=6, max_model_len=24, seqs=6)
    bench.add(*(talker(f"r{i}", i + 1, arrival=float(i)) for i in range(6)))
    while bench.scheduler.has_work():
        best = min(bench.scheduler._roster.by_number)
        step = bench.step()
        assert best in seqs(step)
    bench.verify()


def test_nobody_comes_back_in_the_step_that_sent_him_away() -> None:
    bench = Bench(pages=7, max_model_len=32, prefix_caching=False, budget=32)
    bench.add(*(request(id, [n] * 7, arrival=n, max_tokens=18, ignore_eos=True) for n, id in enumerate("ab", 1)))
    step = bench.step()
    while step is not None and not step.preempted:
        bench.scheduler._roster.by_id["b"].draft = [51] * 12  # never right, but pages are reserved for them
        step = bench.step()
    assert step is not None
    assert (step.preempted, seqs(step)) == ([1], [0])
    assert bench.scheduler.stats().pages_used == 3, "four are free, as many as the other needs"
    bench.run()
    bench.verify()


@pytest.mark.parametrize("mode", ["recompute", "swap"])
def test_a_policy_that_contradicts_itself_does_no_harm(mode: str) -> None:
    bench = Bench(pages=12, max_model_len=32, seqs=3, mode=mode, host_pages=20)

    def always(waiting: RequestView, running: RequestView) -> bool:
        return True

    bench.scheduler._policy.may_preempt = always  # type: ignore[method-assign]
    bench.add(*(request(f"r{i}", [i + 1] * (3 + i), arrival=i, max_tokens=6) for i in range(9)))
    bench.run()
    bench.verify()
    assert bench.scheduler.stats().preemptions > 9


def test_newcomers_leave_the_running_ones_a_page_each() -> None:
    bench = Bench(pages=8, max_model_len=32)
    bench.add(*(request(f"r{i}", [i + 1] * 7, arrival=i, max_tokens=2, ignore_eos=True) for i in range(4)))
    assert seqs(bench.step()) == [0, 1, 2]
    bench.run()
    bench.verify()
    assert bench.scheduler.stats().preemptions == 0


def test_who_may_preempt_needs_no_headroom() -> None:
    bench = Bench(policy_name="priority", pages=8, max_model_len=32)
    bench.add(*(request(f"r{i}", [i + 1] * 7, priority=5, max_tokens=2, ignore_eos=True) for i in range(3)))
    bench.step()
    bench.add(request("now", [9] * 7, priority=1, max_tokens=1))
    step = bench.step()
    assert step is not None
    assert (step.preempted, seqs(step)) == ([], [0, 1, 2, 3])


def test_better_waiting_requests_go_before_swapped_out_ones() -> None:
    bench = Bench(pages=8, max_model_len=32, mode="swap", host_pages=8, policy_name="priority", seqs=2)
    bench.add(urgent("good", 1, 1, arrival=0.0), urgent("bad", 2, 9, arrival=1.0))
    until_preempted(bench)
    bench.add(urgent("better", 3, 5, arrival=2.0))
    bench.run()
    bench.verify()
    order = [seq for step in bench.steps for seq in seqs(step)]
    came_back = next(step.index for step in bench.steps if step.swap_in)
    assert 2 in order and all(came_back > step.index for step in bench.steps if 2 in seqs(step) and step.new)
