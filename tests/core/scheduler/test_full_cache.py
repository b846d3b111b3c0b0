"""A cache that is always full: everybody finishes, nobody waits for ever, whatever preempts."""

from __future__ import annotations

import random

import pytest

from tests.core.scheduler.bench import Bench, request

MODES = {"recompute": {"mode": "recompute"}, "swap": {"mode": "swap", "host_pages": 60}, "little swap": {"mode": "swap", "host_pages": 9}}

@pytest.mark.parametrize("ahead", [False, True], ids=["in turn", "ahead"])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("mode", MODES)
def test_long_requests_on_few_pages(mode: str, policy: str, ahead: bool) -> None:
    """Every request may need the whole cache; forty come, eight at a time, so that it is full for most of the time."""
    dice = random.Random(f"{mode} {policy}")
    bench = Bench(pages=20, block_size=4, max_model_len=80, seqs=8, budget=32, policy_name=policy, ahead=ahead, seed=3, **MODES[mode])
    for number in range(40):
        prompt = [dice.randrange(1, 50) for _ in range(dice.randint(5, 60))]
        bench.add(request(f"r{number}", prompt, max_tokens=80 - len(prompt), ignore_eos=True, arrival=float(number)))
    full = steps = 0
    last: dict[str, int] = {}
    while bench.step() is not None:
        steps += 1
        full += bench.scheduler.stats().pages_used >= 16
        for id, outputs in bench.outputs.items():
            if outputs and outputs[-1].finish_reason is not None:
                last.setdefault(id, steps)
    bench.verify()
    assert full > steps / 4
    assert bench.scheduler.stats().preemptions > 0
    # In order of arrival: whoever came earlier is never overtaken by more than those who run beside him.
    order = sorted(last, key=lambda id: last[id])
    places = [abs(place - int(id[1:])) for place, id in enumerate(order)]
    assert max(places) <= bench.seqs
    alone = sum(80 - len(one.prompt_token_ids) + len(one.prompt_token_ids) // 32 + 1 for one in bench.requests.values())
    assert steps <= alone


@pytest.mark.parametrize("mode", MODES)
def test_short_ones_do_not_starve_a_long_one(mode: str) -> None:
    """Short requests keep coming; the long one that came first ends within the steps that it needs, and a few."""
    bench = Bench(pages=20, block_size=4, max_model_len=80, seqs=6, budget=24, **MODES[mode])
    bench.add(request("long", list(range(1, 21)), max_tokens=60, ignore_eos=True, arrival=0.0))
    for number in range(200):
        bench.add(request(f"s{number}", [number % 40 + 1] * 12, max_tokens=10, ignore_eos=True, arrival=float(number + 1)))
        bench.step()
        if bench.outputs["long"] and bench.outputs["long"][-1].finish_reason is not None:
            break
    assert bench.outputs["long"][-1].finish_reason is not None and number < 80
    bench.run()
    bench.verify()


@pytest.mark.parametrize("mode", MODES)
def test_a_long_one_that_comes_last_is_served(mode: str) -> None:
    """It needs every page there is while short ones keep coming behind it."""
    bench = Bench(pages=20, block_size=4, max_model_len=80, seqs=6, budget=24, **MODES[mode])
    for number in range(6):
        bench.add(request(f"s{number}", [number + 1] * 12, max_tokens=10, ignore_eos=True, arrival=float(number)))
    bench.add(request("long", list(range(1, 71)), max_tokens=10, ignore_eos=True, arrival=6.0))
    for number in range(6, 400):
        bench.add(request(f"s{number}", [number % 40 + 1] * 12, max_tokens=10, ignore_eos=True, arrival=float(number + 1)))
        bench.step()
        if bench.outputs["long"] and bench.outputs["long"][-1].finish_reason is not None:
            break
    assert bench.outputs["long"][-1].finish_reason is not None and number < 150
    bench.run()
    bench.verify()
