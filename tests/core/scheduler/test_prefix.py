"""Prefixes are computed once: from the cache, and by waiting for who computes them right now."""

from __future__ import annotations

import pytest

from engine.plugin.request import MultimodalItem
from tests.core.scheduler.bench import Bench, request

PROMPT = [(7 * i) % 43 + 1 for i in range(41)]


def cached(bench: Bench, id: str) -> int:
    return bench.outputs[id][0].cached_tokens


def test_a_second_request_takes_the_cached_blocks() -> None:
    bench = Bench()
    bench.add(request("a", PROMPT))
    bench.run()
    bench.add(request("b", PROMPT), request("c", [*PROMPT[:20], 49, 49]))
    bench.run()
    bench.verify()
    assert (cached(bench, "a"), cached(bench, "b"), cached(bench, "c")) == (0, 40, 20)
    stats = bench.scheduler.stats()
    assert (stats.prefix_queries, stats.prefix_hits) == (10 + 10 + 5, 10 + 5)


def test_one_token_is_always_left_to_compute() -> None:
    bench = Bench()
    bench.add(request("a", PROMPT[:40]))
    bench.run()
    bench.add(request("b", PROMPT[:40]))
    bench.run()
    bench.verify()
    assert cached(bench, "b") == 36


def test_the_answer_is_cached_too() -> None:
    bench = Bench()
    bench.add(request("a", PROMPT, max_tokens=12, ignore_eos=True))
    bench.run()
    bench.add(request("next turn", [*PROMPT, *bench.tokens("a"), 5, 6]))
    bench.run()
    bench.verify()
    assert cached(bench, "next turn") == 52  # 41 + 12 tokens, of which the last was never computed: 13 blocks of 4


@pytest.mark.parametrize("ahead", [False, True], ids=["in turn", "ahead"])
def test_siblings_that_arrive_together_compute_their_prompt_once(ahead: bool) -> None:
    bench = Bench(budget=512, ahead=ahead)
    bench.add(*(request(f"n{i}", PROMPT, max_tokens=1) for i in range(6)))
    bench.run()
    bench.verify()
    assert bench.simulator.computed == 41 + 5 * 1
    assert [step.num_tokens for step in bench.steps] == [41, 5]


def test_shared_beginnings_are_computed_once_though_the_rest_differs() -> None:
    bench = Bench(budget=20)
    bench.add(*(request(f"n{i}", [*PROMPT[:24], 40 + i, 2, 3, 4, 5], max_tokens=1) for i in range(4)))
    bench.run()
    bench.verify()
    assert bench.simulator.computed == 24 + 4 * 5


def test_waiting_for_a_prefix_does_not_hold_up_others() -> None:
    bench = Bench(budget=512)
    bench.add(request("a", PROMPT, arrival=0), request("b", PROMPT, arrival=1), request("c", [1, 2, 3], arrival=2))
    bench.step()
    assert [work.count for work in bench.steps[0].work] == [41, 3]
    assert bench.scheduler.stats().waiting == 1


def test_waiters_compute_for_themselves_when_the_first_is_aborted() -> None:
    bench = Bench(budget=16)
    bench.add(*(request(f"n{i}", PROMPT, arrival=i) for i in range(3)))
    bench.step()
    assert (bench.scheduler.stats().running, bench.scheduler.stats().waiting) == (1, 2)
    bench.abort("n0")
    bench.run()
    bench.verify()
    assert bench.simulator.computed < 2 * 41 + 16


def test_a_waiter_can_be_aborted() -> None:
    bench = Bench(budget=16)
    bench.add(request("a", PROMPT, arrival=0), request("b", PROMPT, arrival=1))
    bench.step()
    bench.abort("b")
    assert bench.scheduler.stats().waiting == 0
    bench.run()
    bench.verify()


def test_adapters_salts_and_pictures_keep_prefixes_apart() -> None:
    def item(digest: str, start: int = 8) -> MultimodalItem:
        return MultimodalItem("image", digest, start, 8, {})

    bench = Bench(pages=200)
    variants = {
        "plain": {}, "adapter": {"adapter": "x"}, "salt": {"cache_salt": "x"},
        "both": {"adapter": "x", "cache_salt": "x"},
        "picture": {"multimodal": (item("p"),)}, "another": {"multimodal": (item("q"),)},
        "shifted": {"multimodal": (item("p", 9),)},
    }  # fmt: skip
    for name, fields in variants.items():
        bench.add(request(name, PROMPT, **fields))
        bench.run()
    # The two blocks before the picture are text alike.
    assert {name: cached(bench, name) for name in variants} == {
        "plain": 0, "adapter": 0, "salt": 0, "both": 0, "picture": 8, "another": 8, "shifted": 8,
    }  # fmt: skip
    for name, fields in variants.items():
        bench.add(request(name + " again", PROMPT, **fields))
    bench.run()
    bench.verify()
    assert {cached(bench, name + " again") for name in variants} == {40}


def test_prompt_logprobs_need_the_whole_prompt_but_leave_it_to_others() -> None:
    bench = Bench(budget=16)
    bench.add(request("a", PROMPT, prompt_logprobs=0))
    bench.run()
    bench.add(request("b", PROMPT, prompt_logprobs=0), request("c", PROMPT))
    bench.run()
    bench.verify()
    assert (cached(bench, "b"), cached(bench, "c")) == (0, 40)
    scored = [entry.token_id for output in bench.outputs["b"] for entry in output.prompt_logprobs or ()]
    assert scored == PROMPT[1:]


def test_without_prefix_caching_nothing_is_shared() -> None:
    bench = Bench(prefix_caching=False)
    bench.add(request("a", PROMPT, max_tokens=1), request("b", PROMPT, max_tokens=1))
    bench.run()
    bench.verify()
    assert bench.simulator.computed == 82
    assert bench.scheduler.stats().prefix_queries == 0


def test_reset_forgets_prefixes_but_only_when_nobody_uses_pages() -> None:
    bench = Bench(budget=16)
    bench.add(request("a", PROMPT))
    bench.step()
    assert not bench.scheduler.reset_prefix_cache()
    bench.run()
    assert bench.scheduler.reset_prefix_cache()
    bench.add(request("b", PROMPT))
    bench.run()
    bench.verify()
    assert cached(bench, "b") == 0


def test_a_failed_sequence_leaves_nothing_in_the_cache() -> None:
    bench = Bench(budget=16)
    bench.add(request("bad", PROMPT))
    bench.step()
    assert bench.scheduler._cache.match(next(iter(bench.scheduler._roster.running)).table)
    bench.simulator.fail.add(0)
    bench.run()
    assert bench.outputs["bad"][-1].error == "logits are not finite"
    bench.add(request("good", PROMPT))
    bench.run()
    assert cached(bench, "good") == 0
    assert bench.scheduler.stats().pages_used == 0
